from tests.support.gateway import Gateway, Sender
from shared.contracts.commands import ConnectInstance, Dispatch


async def test_smoke(gateway: Gateway) -> None:
    user, account = await gateway.register()
    for path in (
        "/api/auth/me",
        "/api/organization",
        "/api/instances",
        "/api/version",
        "/health",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/api/stats",
        "/api/events",
        "/api/messages",
        "/api/messages?page=1",
    ):
        a = await user.get(path)
        assert a.status == 200, (path, a.body)
    made = await user.post("/api/instances", {"name": "x", "engine": "sandbox"})
    i = made.data["id"]
    a = await user.post(f"/api/instances/{i}/connect")
    assert a.status == 202, a.body
    print(await gateway.heard.next(ConnectInstance))
    for path in ("", "/status", "/guard", "/keys", "/qr", "/webhook"):
        a = await user.get(f"/api/instances/{i}{path}")
        print(path, a.status, a.body)
    k = await user.post(f"/api/instances/{i}/keys", {"name": "test"})
    print(k.data)
    a = await user.post(f"/api/instances/{i}/webhook", {"url": "http://127.0.0.1:1234/x"})
    print(a.body)
    a = await user.with_key(k.data["key"]).text("+12025550199", "x")
    print(a.body)


async def test_send(gateway: Gateway, sender: Sender) -> None:
    a = await sender.text()
    print(a.body, a.headers)
    assert a.status == 202
    print(await gateway.heard.next(Dispatch))
    m = a.data["id"]
    a = await sender.customer.get(f"/api/messages/{m}")
    print(a.body)
    a = await sender.customer.get(f"/api/messages/{m}/timeline")
    print(a.body)
    for n in range(3):
        a = await sender.text(headers={"Idempotency-Key": "k"})
        print(a.body, a.status)
    assert await gateway.count("dispatcher.messages") == 2
