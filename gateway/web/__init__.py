"""The ASGI application: routes, CORS, admission, operator endpoints."""
