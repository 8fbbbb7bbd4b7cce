"""HTTP/2 requests of one connection, to which a server may give one shared ASGI state."""

import asyncio

import httpx2 as httpx
import pytest
import servers

from keytally import Gate


@pytest.mark.parametrize("app", ["starlette_app:served", "fastapi_app:served", "fastapi_app:bare"])
def test_http2_streams_have_their_own_verdicts(app, tmp_path, pepper):
    gate = Gate.create(tmp_path / "api.gate", pepper=pepper, keys=64)
    keys = [gate.issue(account) for account in (1, 2)]

    async def fetch(address):
        async with httpx.AsyncClient(http1=False, http2=True) as client:
            # The later requests use the connection of this one.
            await client.get(f"{address}/health")
            requests = [
                client.get(f"{address}/pair", headers={"X-API-Key": key.expose()}) for key in keys
            ]
            return await asyncio.gather(*requests)

    with servers.server(servers.HYPERCORN, app, gate=gate, pepper=pepper, workers=1) as address:
        answers = asyncio.run(fetch(address))
    assert [answer.http_version for answer in answers] == ["HTTP/2"] * 2
    assert [answer.json() for answer in answers] == [[1, 1], [2, 2]]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["999"] * 2
