"""How often monitors of drift alarm while nothing changes, and how soon they find what does."""
