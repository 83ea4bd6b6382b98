"""The classes of the labels, and what searching for them is worth."""

from fastapi import APIRouter

from forclip.server.class_schemas import NO_LABELS, ClassesOut
from forclip.server.class_table import ClassTable


def class_routes(table: ClassTable | None) -> APIRouter:
    """Under /api. table: None where there are no labels."""
    routes = APIRouter(prefix="/api", tags=["classes"])

    @routes.get("/classes")
    def classes() -> ClassesOut:
        """How well searching each class's name does in this store; base and novel classes. At once: what is known."""
        return NO_LABELS if table is None else table.now()

    return routes
