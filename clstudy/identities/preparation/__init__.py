"""From photos and videos of people to identities: selection, filters, what is written."""
