"""What the book's exercises must satisfy, one module per chapter. Reading them spoils the exercises."""
