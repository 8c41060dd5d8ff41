"""What can be sent here."""

from django import forms


class UploadForm(forms.Form):
    """One file of any size, empty ones included."""

    file = forms.FileField(allow_empty_file=True)
