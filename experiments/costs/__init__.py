"""What a run would take before it starts: parameters, FLOPs, memory, time."""
