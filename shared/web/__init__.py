"""The HTTP edge over aiohttp: what every route shares, so that a route is parse, call, present."""
