"""Addresses of the chat."""

from django.urls import path

from . import views

app_name = "rooms"

urlpatterns = [
    path("", views.RoomList.as_view(), name="list"),
    path("new/", views.RoomCreate.as_view(), name="create"),
    path("rooms/<slug:slug>/", views.room, name="detail"),
    path("rooms/<slug:slug>/here/", views.here, name="here"),
    path("rooms/<slug:slug>/post/", views.post, name="post"),
]
