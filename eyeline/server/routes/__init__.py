"""The server's routes: one function each, on the desk that the application opens."""

from eyeline.server.routes import facts, history, page_files, questions

ROUTERS = (questions.router, history.router, facts.router, page_files.router)
