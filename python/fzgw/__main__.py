"""``python -m fzgw``: the same program as ``fzgw``."""

from fzgw.cli import main

if __name__ == "__main__":
    main(prog_name="fzgw")
