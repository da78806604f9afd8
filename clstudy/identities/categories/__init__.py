"""Images of categories, learned one after the other: where they come from, and how they become a data set."""
