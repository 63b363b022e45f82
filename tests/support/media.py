"""Settings of a media store."""

from pathlib import Path
from typing import Any

from shared.media.settings import MediaSettings


def media_settings(place: dict[str, str] | Path, **given: Any) -> MediaSettings:
    """Settings with everything else made up."""
    return MediaSettings.model_validate(
        {
            "database_url": "postgresql://nobody.invalid/none",
            "amqp_url": "amqp://nobody.invalid",
            **({"media_store": str(place)} if isinstance(place, Path) else place),
            **given,
        }
    )
