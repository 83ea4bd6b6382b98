// The classes of the labels, and what they say of a list.
