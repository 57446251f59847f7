"""Mutations of how files of others are read: tests that should fail -> what is broken."""

TABLE = {
    "test_patients.py": [
        ("patients: unlabelled cases of a held-out one are in no pool",
         " for case in free if case not in part.barred)]", " for case in free)]"),
        ("patients: joined with exact duplicates", "joined(twins.groups, patients) if patients",
         "twins.groups if patients"),
        ("patients: a pattern that misses cases is refused",
         "if left := [case for case in ids if case not in found]:", "if left := []:"),
    ],
    "test_inputs_3d.py": [
        ("scans: a code for what was not measured", "if found := int((np.abs(volume) > FILL).sum()):",
         "if found := 0:"),
        ("scans: more bytes than the header says", "if length - first > needed:", "if False:"),
        ("scans: a label map elsewhere", "if np.abs(apart).max() > APART:", "if False:"),
        ("scans: two slices are a volume", "SMALLEST_AXIS = 2 ", "SMALLEST_AXIS = 8 "),
        ("scans: the affine counts", "zooms = measured  # as ITK has it", "pass  # as ITK has it"),
        ("scans: foreground that is cut off is counted",
         "return int(every - inside)", "return 0"),
        ("files changed with their time set back are read again",
         "found.st_mtime_ns, found.st_ctime_ns]", "found.st_mtime_ns, 0]"),
    ],
    "test_inputs_2d.py": [
        ("tables: a decimal comma is no field more", "if any(fields[len(header):]):", "if False:"),
        ("tables: quotes that swallow rows", "if any(line.count(separator) >= max(1, width - 1)",
         "if any(False"),
        ("tables: a column that is there twice", "if header.count(wanted) != 1:",
         "if wanted not in header:"),
        ("tables: a CSV wins over folders of numbers",
         "parts = [] if _tables(folder) else _folders", "parts = _folders"),
        ("photographs: a cut JPEG", "if (last == FILLED).all() and", "if False and"),
        ("photographs: several pages", "        if pages > 1:", "        if False:"),
        ("photographs: 9 to 16 bits", "depth = max(8, int(colours.max()).bit_length())", "depth = 16"),
    ],
    "test_layouts.py": [
        ("nnU-Net: other endings name a converter", 'how = _converter(file.suffix) or "convert it"',
         'how = "convert it"'),
    ],
    "test_terminals.py": [
        ("terminals: who stops reading ends it quietly", "return 128 + signal.SIGPIPE", "return 1"),
        ("terminals: letters that are lacking", 'stream.reconfigure(errors="backslashreplace")', "pass"),
    ],
}
