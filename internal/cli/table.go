package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/mattn/go-runewidth"
)

// gap is between two columns.
const gap = "  "

// cell returns a value as people read it.
func cell(v any) string {
	switch v := v.(type) {
	case nil:
		return "-"
	case string:
		if v == "" {
			return "-"
		}
		return printable(v)
	case stamp: // to the second
		if whole, _, fraction := strings.Cut(string(v), "."); fraction {
			return whole + "Z"
		}
		return string(v)
	case bool:
		if v {
			return "yes"
		}
		return "no"
	case json.Number:
		return v.String()
	case []any:
		if len(v) == 0 {
			return "-"
		}
		parts := make([]string, len(v))
		for i, e := range v {
			parts[i] = cell(e)
		}
		return strings.Join(parts, ", ")
	case record:
		if id := v.get("id"); id != nil && v.get("extra") != nil { // a resource inside of another
			return strings.TrimSpace(cell(id) + " " + called(v))
		}
		var parts []string
		for _, name := range v.columns() {
			parts = append(parts, printable(name)+"="+cell(v.get(name)))
		}
		if len(parts) == 0 {
			return "-"
		}
		return strings.Join(parts, " ")
	}
	b, err := encode(v)
	if err != nil {
		return "?"
	}
	return printable(string(b))
}

// called returns what people call a resource, in parentheses, if it has a name.
func called(r record) string {
	for _, field := range []string{"title", "name", "identifier", "url"} {
		if name, _ := r.get(field).(string); name != "" {
			return "(" + printable(name) + ")"
		}
	}
	return ""
}

// shade returns the colour of a value: states are told apart by it.
func shade(name string, v any) color {
	if name != "state" && name != "result" {
		return ""
	}
	switch s, _ := v.(string); s {
	case "active", "valid", "succeeded", "configured", "delivered", "DONE", "ok":
		return green
	case "blocked", "expired", "invalid", "failed", "STUCK", "wrong":
		return red
	case "-", "", "IDLE", "skipped":
		return dim
	}
	return yellow
}

// writeTable writes records as an aligned table with these columns; if that is
// wider than the screen, each record as a block of lines.
func writeTable(w io.Writer, columns []string, records []record, width int, colors bool) error {
	widths := make([]int, len(columns))
	for i, c := range columns {
		widths[i] = runewidth.StringWidth(c)
	}
	for _, r := range records {
		for i, c := range columns {
			widths[i] = max(widths[i], runewidth.StringWidth(cell(r.get(c))))
		}
	}
	total := len(gap) * (len(columns) - 1)
	for _, n := range widths {
		total += n
	}
	if total > width {
		return writeBlocks(w, columns, records, colors)
	}
	var b strings.Builder
	line := func(text func(i int) (string, color)) {
		for i := range columns {
			s, c := text(i)
			b.WriteString(paint(colors, c, s))
			if i < len(columns)-1 { // no trailing blanks
				b.WriteString(strings.Repeat(" ", widths[i]-runewidth.StringWidth(s)) + gap)
			}
		}
		b.WriteByte('\n')
	}
	line(func(i int) (string, color) { return strings.ToUpper(columns[i]), bold })
	for _, r := range records {
		line(func(i int) (string, color) {
			v := r.get(columns[i])
			return cell(v), shade(columns[i], v)
		})
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeBlocks writes each record as lines "name  value", with an empty line
// between two.
func writeBlocks(w io.Writer, columns []string, records []record, colors bool) error {
	longest := 0
	for _, c := range columns {
		longest = max(longest, runewidth.StringWidth(c))
	}
	var b strings.Builder
	for i, r := range records {
		if i > 0 {
			b.WriteByte('\n')
		}
		for _, c := range columns {
			v := r.get(c)
			pad := strings.Repeat(" ", longest-runewidth.StringWidth(c))
			fmt.Fprintf(&b, "%s%s%s\n", paint(colors, bold, c), pad+gap, paint(colors, shade(c, v), cell(v)))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// columns returns the names of a record's fields, without a catch-all that is
// empty.
func (r record) columns() []string {
	var names []string
	for _, f := range r {
		if rest, ok := f.value.(record); f.name == "extra" && (!ok || len(rest) == 0) {
			continue
		}
		names = append(names, f.name)
	}
	return names
}

// fold breaks a text into lines of a width at its spaces. A word that is wider
// has a line of its own; where there is next to no room nothing is broken.
func fold(text string, width int) []string {
	if width < 20 {
		return []string{text}
	}
	var lines []string
	line := ""
	for _, word := range strings.Split(text, " ") {
		switch {
		case line == "":
			line = word
		case runewidth.StringWidth(line)+1+runewidth.StringWidth(word) > width:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

// wrapped breaks the lines of a text that are wider than the screen. What is
// left of a line is indented a little more than its beginning.
func wrapped(text string, width int) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if runewidth.StringWidth(l) <= width {
			continue
		}
		body := strings.TrimLeft(l, " ")
		lead := l[:len(l)-len(body)]
		lines[i] = lead + strings.Join(fold(body, width-len(lead)-len(gap)), "\n"+lead+gap)
	}
	return strings.Join(lines, "\n")
}
