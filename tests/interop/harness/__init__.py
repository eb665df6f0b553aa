"""What every case needs: a site of its own, a client that looks at every byte, a spool and an independent reader of it."""
