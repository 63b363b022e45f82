"""Whether the service of this container is alive: the check of the image, without settings.

A container runs one service, so whichever of the five ports answers is the one. Other ports are
named as arguments.
"""

import http.client
import sys

PORTS = (8080, 8081, 8082, 8083, 8084)


def alive(port: int) -> bool:
    """Whether a service says so on ``port``; within 4 s, as Docker waits for 5."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    ports = [int(argument) for argument in sys.argv[1:]] or PORTS
    sys.exit(0 if any(alive(port) for port in ports) else 1)
