"""Which page is where."""

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.views.generic import RedirectView


async def healthz(_request: HttpRequest) -> HttpResponse:
    """Say that the process answers; load balancers ask here."""
    return HttpResponse("ok\n", content_type="text/plain")


urlpatterns = [
    path("", include("rooms.urls")),
    path("", include("transfers.urls")),
    path("accounts/", include("django.contrib.auth.urls")),
    path("admin/", admin.site.urls),
    path("favicon.ico", RedirectView.as_view(url=f"{settings.STATIC_URL}icon.svg")),
    path("healthz", healthz),
]
