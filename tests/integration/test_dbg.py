import asyncio
from tests.integration.conftest import gateway, sender
from shared.contracts.commands import Dispatch
async def test_x(gateway, sender):
    other = await gateway.sender()
    await asyncio.gather(*(who.text() for who in (sender, other) for _ in range(20)))
    await asyncio.sleep(1)
    print("HEARD", [(m.queue,m.body,m.attempt) for m in gateway.heard.messages])
    print({q:(len(v._unclaimed), [len(r._waiting) for r in v._receivers]) for q,v in gateway.broker._queues.items() if 'disp' in q})
    for t in asyncio.all_tasks(): print(t.get_name(), [str(f)[-80:] for f in t.get_stack()])
