"""Run the command line: `python -m forclip`."""

from forclip.cli import main

main()
