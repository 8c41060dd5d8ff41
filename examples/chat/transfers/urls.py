"""Addresses of what streams."""

from django.urls import path

from . import views

app_name = "transfers"

urlpatterns = [
    path("clock/", views.Clock.as_view(), name="clock"),
    path("stream/", views.stream, name="stream"),
    path("upload/", views.Upload.as_view(), name="upload"),
    path("download/<int:size>/", views.download, name="download"),
]
