"""x"""
TABLE = []
