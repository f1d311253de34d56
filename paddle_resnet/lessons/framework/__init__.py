"""What every lesson is made with: its page, how it is written, and the table of lessons."""
