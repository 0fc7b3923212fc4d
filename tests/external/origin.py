"""A small HTTP/1.1 service to publish: pages, echoes, ranges, uploads, events and WebSocket, on one loopback port."""

import asyncio
import hashlib
import logging
import queue
import threading
import time

from aiohttp import WSMsgType, web

# What `/range` serves: long enough to cut pieces out of, and every piece tells where it came from.
DOCUMENT = "".join(f"{n:07d}\n" for n in range(4096)).encode()

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>external origin</title>
<p id="sse">waiting</p>
<p id="ws">waiting</p>
<script>
const say = (id, text) => { document.getElementById(id).textContent = text; };
const events = new EventSource("/events");
let seen = [];
events.onmessage = (e) => { seen.push(e.data); say("sse", seen.join(",")); if (seen.length === 3) events.close(); };
events.onerror = () => say("sse", "error after " + seen.length);
const socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/ws", ["echo.v1"]);
socket.onopen = () => socket.send("from the page");
socket.onmessage = (e) => { say("ws", socket.protocol + ": " + e.data); socket.close(1000, "done"); };
socket.onerror = () => say("ws", "error");
</script>
"""


# A visitor that goes away is part of some cases, not news.
logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)


class Origin:
    """Runs on a thread of its own; `requests` lists what arrived, `events` feeds `/live`."""

    def __init__(self):
        self.port = 0
        self.requests = []
        self.gone = queue.Queue()
        self._live = None
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the origin did not come up")

    def _serve(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    async def _start(self):
        self._live = asyncio.Queue()
        application = web.Application(client_max_size=1 << 40, middlewares=[self._record])
        application.router.add_get("/", self._page)
        application.router.add_route("*", "/echo", self._echo)
        application.router.add_get("/range", self._range)
        application.router.add_put("/upload", self._upload)
        application.router.add_put("/refuse", self._refuse)
        application.router.add_get("/bytes/{count}", self._bytes)
        application.router.add_get("/events", self._events)
        application.router.add_get("/live", self._follow)
        application.router.add_get("/ws", self._websocket)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]

    def close(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def forget(self):
        """Between cases: nothing of the last one is seen by the next."""
        self.requests.clear()
        while not self.gone.empty():
            self.gone.get_nowait()

    def send_live(self, data):
        """Has `/live` write an event; returns when it was handed to the socket, on this process's monotonic clock."""
        return asyncio.run_coroutine_threadsafe(self._send_live(data), self._loop).result(5)

    async def _send_live(self, data):
        written = self._loop.create_future()
        await self._live.put((data, written))
        return await written

    @web.middleware
    async def _record(self, request, handler):
        self.requests.append((request.method, request.raw_path, dict(request.headers)))
        return await handler(request)

    async def _page(self, request):
        return web.Response(text=PAGE, content_type="text/html")

    async def _echo(self, request):
        body = await request.read()
        told = {
            "method": request.method,
            "path": request.raw_path,
            "headers": {k.lower(): v for k, v in request.headers.items()},
            "body": body.decode("latin-1"),
        }
        return web.json_response(told, headers={"X-Origin": "external"})

    async def _range(self, request):
        wanted = request.http_range
        if wanted.start is None:
            return web.Response(body=DOCUMENT, headers={"Accept-Ranges": "bytes"})
        piece = DOCUMENT[wanted]
        first = wanted.start if wanted.start >= 0 else len(DOCUMENT) + wanted.start
        span = f"bytes {first}-{first + len(piece) - 1}/{len(DOCUMENT)}"
        return web.Response(status=206, body=piece, headers={"Content-Range": span})

    async def _upload(self, request):
        digest, count = hashlib.sha256(), 0
        async for chunk in request.content.iter_any():
            digest.update(chunk)
            count += len(chunk)
        return web.Response(text=f"{count} {digest.hexdigest()}")

    async def _refuse(self, request):
        """Answers without reading the body."""
        return web.Response(status=413, text="too much", headers={"Connection": "close"})

    async def _bytes(self, request):
        left = int(request.match_info["count"])
        response = web.StreamResponse(headers={"Content-Length": str(left)})
        await response.prepare(request)
        block = bytes(64 * 1024)
        try:
            while left:
                piece = block[: min(left, len(block))]
                await response.write(piece)
                left -= len(piece)
            await response.write_eof()
        except ConnectionError:
            self.gone.put("bytes")
        return response

    async def _stream(self, request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        return response

    async def _events(self, request):
        response = await self._stream(request)
        for number in range(3):
            await response.write(f"data: {number}\n\n".encode())
        await response.write_eof()
        return response

    async def _follow(self, request):
        response = await self._stream(request)
        try:
            while True:
                data, written = await self._live.get()
                await response.write(f"data: {data}\n\n".encode())
                written.set_result(time.monotonic())
                if data == "end":
                    break
            await response.write_eof()
        except ConnectionError:
            self.gone.put("live")
        return response

    async def _websocket(self, request):
        socket = web.WebSocketResponse(protocols=("echo.v1",))
        await socket.prepare(request)
        async for message in socket:
            if message.type == WSMsgType.TEXT and message.data == "close please":
                await socket.close(code=4001, message=b"as you wish")
            elif message.type == WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type == WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        self.gone.put(("ws", socket.close_code))
        return socket
