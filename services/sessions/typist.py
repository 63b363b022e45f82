"""The typist: before a text goes out, its chat is shown that the account is typing."""

import asyncio
from datetime import timedelta
from typing import Final

from services.sessions.domain.addresses import canonical
from services.sessions.domain.typing_time import typing_time
from services.sessions.supervisor import Session
from shared.clock import Clock
from shared.contracts.capabilities import Capability
from shared.contracts.commands import Transmission
from shared.contracts.content import Text
from shared.errors import PlatformError
from shared.log import get_logger

log = get_logger()

# A sign that takes longer to show is not worth its wait.
PATIENCE: Final = timedelta(seconds=2)


class Typist:
    """Types where the instance's guard asks for it, at ``most`` in so many chats at a time.

    A sign is worth little: where it cannot be shown, or too much is typed already, the text goes
    without.
    """

    def __init__(self, *, clock: Clock, most: int) -> None:
        self._clock = clock
        self._most = most
        self._typing = 0

    def wanted(self, session: Session, transmission: Transmission) -> bool:
        """Whether to type before this is handed over."""
        return (
            session.instance.typing
            and isinstance(transmission.content, Text)
            and Capability.TYPING in session.engine.capabilities
            and self._typing < self._most
        )

    async def type(self, session: Session, transmission: Transmission) -> None:
        """Show it, and wait for as long as typing would take. May be cancelled at any time."""
        content = transmission.content
        if not isinstance(content, Text):
            return
        self._typing += 1
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                await session.engine.show_presence(
                    transmission.instance_id, chat=canonical(transmission.to), state="typing"
                )
            await self._clock.sleep(typing_time(content.text))
        except PlatformError as error:
            log.info("typing_refused", reason=error.message)
        except TimeoutError:
            log.info("typing_refused", reason="It took too long.")
        except Exception:
            log.exception("typing_failed", engine=session.engine.kind)
        finally:
            self._typing -= 1
