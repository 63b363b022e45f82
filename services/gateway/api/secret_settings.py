"""The secrets among an instance's settings: sealed before they are stored, shown to nobody."""

from collections.abc import Mapping
from uuid import UUID

from services.gateway.domain.engines import (
    ENGINES,
    VERIFY_DIGEST,
    VERIFY_TOKEN,
    Engine,
    secret_names,
)
from services.gateway.store.instances import Instance
from shared.log import get_logger
from shared.security.sealing import (
    KeyRing,
    Unsealable,
    lookup_digests,
    open_text,
    seal_text,
    setting_place,
)

log = get_logger()


class InstanceSecrets:
    """Seals and opens with the platform's ring."""

    def __init__(self, *, ring: KeyRing) -> None:
        self._ring = ring

    def opened(self, instance: Instance) -> dict[str, object]:
        """An instance's secrets in the clear; those that no key opens must be given anew."""
        engine = ENGINES.get(instance.engine)
        found: dict[str, object] = {}
        for name in sorted(set() if engine is None else secret_names(engine.settings)):
            stored = instance.settings.get(name)
            if not isinstance(stored, str):
                continue
            place = setting_place(instance.tenant_id, instance.id, name)
            try:
                found[name] = open_text(self._ring, stored, place)
            except Unsealable:
                log.warning("secret_not_readable", instance_id=str(instance.id), setting=name)
        return found

    def sealed(
        self,
        engine: Engine,
        settings: Mapping[str, object],
        tenant_id: UUID,
        instance_id: UUID,
        *,
        before: Mapping[str, object] | None = None,
        kept: Mapping[str, object] | None = None,
    ) -> dict[str, object]:
        """Settings as they are stored. A secret that is in ``kept`` as it was stays as it is stored
        in ``before``, so that it can be seen that it has not changed.
        """
        made = dict(settings)
        for name in secret_names(engine.settings):
            plain = settings.get(name)
            if not isinstance(plain, str):
                continue
            stored = None if before is None else before.get(name)
            if stored != plain and kept is not None and kept.get(name) == plain:
                made[name] = stored
            else:
                # New, or from before it was sealed.
                place = setting_place(tenant_id, instance_id, name)
                made[name] = seal_text(self._ring, plain, place)
        token = settings.get(VERIFY_TOKEN)
        if VERIFY_TOKEN in secret_names(engine.settings) and isinstance(token, str):
            made[VERIFY_DIGEST] = lookup_digests(self._ring, token)[0]
        return made
