"""Weights & Biases: a mirror of a run's own files, which never prompts, never stops a run and never slows one.

Whatever talks to W&B is a process of its own (`client`), so that nothing of it, its service or its server can block,
crash or outlive the run: the run hands lines to a queue (`courier`) and goes on. One run folder is one W&B run,
whichever verbs and attempts work on it. Begin with `mirror.mirrored`.
"""
