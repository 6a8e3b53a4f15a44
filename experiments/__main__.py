"""`python -m experiments`. Lightning's ddp launcher starts it again for each further rank, with the same arguments."""

import sys

from experiments.cli import main

sys.exit(main())
