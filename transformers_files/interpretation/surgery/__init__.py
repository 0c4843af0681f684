"""Surgery on hidden states: `insert_info`, the hooks that carry it out, and the three methods that the patch binds."""
