"""What people may write."""

from django import forms
from django.core.exceptions import ValidationError
from django.utils.text import slugify

from .models import Message, Room


class RoomForm(forms.ModelForm):
    """A new room."""

    class Meta:
        model = Room
        fields = ("name", "topic")

    def clean_name(self) -> str:
        """Refuse a name whose address is empty or taken."""
        name = self.cleaned_data["name"]
        slug = slugify(name)
        if not slug:
            message = "Use at least one letter or digit."
            raise ValidationError(message)
        if Room.objects.filter(slug=slug).exclude(pk=self.instance.pk).exists():
            message = "There is a room of this name already."
            raise ValidationError(message)
        return name


class MessageForm(forms.ModelForm):
    """One message."""

    class Meta:
        model = Message
        fields = ("text",)
        widgets = {"text": forms.Textarea(attrs={"rows": 1, "placeholder": "Write a message", "aria-label": "Message", "autofocus": True})}
