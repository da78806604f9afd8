"""The HTML report: sections are plain data (``blocks``), templates turn them into one page (``render``)."""
