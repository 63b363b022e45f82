"""The command line: ``python -m services.command_line``, or ``waypost`` for short."""

from services.command_line.app import app

if __name__ == "__main__":
    app(prog_name="waypost")
