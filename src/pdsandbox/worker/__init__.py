"""The untrusted side: what runs in a worker and in a compiler. The supervisor never imports anything from here."""
