"""Run all of Waypost in one process: ``python -m services``."""

from services.embedded import main

if __name__ == "__main__":
    main()
