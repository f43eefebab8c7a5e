package sink

import (
	"fmt"
	"strings"
)

// INI returns a sink that is the value of a key in a section of an INI file,
// as Python's RawConfigParser and [keywright.NewRicloud] read it: "token" in
// "api" of ~/.ricloud.ini is where ricloud-py looks. Keys are the same in
// upper and lower case, sections are not. Everything else in the file stays as
// it is. A section or key that is absent is made; one that is there twice is
// refused.
//
// Programs read such a file when they start, so that they keep the old token
// until then, unless [WithLag] says otherwise.
func INI(path, section, key string, opts ...FileOption) Sink {
	var invalid error
	switch {
	case section == "" || strings.TrimSpace(section) != section || strings.ContainsAny(section, "[]\r\n\x00"):
		invalid = problem("the section's name is not one")
	case !isKey(key):
		invalid = problem("the key is not one: want letters, digits, _, - and .")
	}
	return newFileSink("ini "+path+" ["+section+"] "+key, path, maxConfigFile, iniFormat{section, key}, invalid).with(opts)
}

func isKey(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && !isDigit(c) && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return s != ""
}

// iniFormat is one key of an INI file.
type iniFormat struct{ section, key string }

// iniPlace is where in a text the key is, or would be.
type iniPlace struct {
	section    bool // the section is there
	line       int  // of the key; 0 if it is absent
	start, end int  // of the value
	insert     int  // where a line with the key can be put
}

func (f iniFormat) get(content []byte) (string, error) {
	text := string(content)
	p, err := f.find(text)
	if err != nil || p.line == 0 {
		return "", err
	}
	value, quote := iniUnquote(text[p.start:p.end])
	if quote == "" && value != "" && (value[0] == '"' || value[0] == '\'') {
		return "", atLine(p.line, "has a quote that is not closed")
	}
	return value, nil
}

func (f iniFormat) set(content []byte, token string) ([]byte, error) {
	text := string(content)
	p, err := f.find(text)
	if err != nil {
		return nil, err
	}
	eol := newline(text)
	line := f.key + " = " + token + eol
	switch {
	case p.line > 0:
		_, quote := iniUnquote(text[p.start:p.end])
		before := text[:p.start]
		if p.start == p.end && strings.HasSuffix(before, " =") {
			before += " "
		}
		text = before + quote + token + quote + text[p.end:]
	case p.section:
		text = endLine(text[:p.insert]) + line + text[p.insert:]
	default:
		if text = endLine(text); strings.Trim(text, byteOrderMark) != "" {
			text += eol
		}
		text += "[" + f.section + "]" + eol + line
	}
	return []byte(text), nil
}

// find looks for the key.
func (f iniFormat) find(text string) (p iniPlace, err error) {
	if err := checkText(text); err != nil {
		return p, err
	}
	var (
		sections = make(map[string]int) // and the lines they start in
		section  string
		indent   = -1    // of the key that an indented line goes on; -1 without one
		ours     = false // that key is ours
	)
	pos := len(text) - len(strings.TrimPrefix(text, byteOrderMark))
	for n := 1; pos < len(text); n++ {
		line, _, _ := strings.Cut(text[pos:], "\n")
		start := pos
		pos = min(pos+len(line)+1, len(text))
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';' {
			continue
		}
		depth := len(line) - len(strings.TrimLeft(line, blanks))
		switch {
		case indent >= 0 && depth > indent:
			switch {
			case trimmed[0] == '[':
				return p, atLine(n, "is an indented section, which readers do not agree about")
			case ours:
				return p, atLine(n, "goes on with the value that the token is to replace")
			}
		case trimmed[0] == '[':
			name, closed := strings.CutSuffix(trimmed[1:], "]")
			if !closed {
				return p, atLine(n, "has a section header that is not closed")
			}
			if first, twice := sections[name]; twice {
				return p, problem(fmt.Sprintf("has the same section twice, in lines %d and %d", first, n))
			}
			sections[name] = n
			section, indent, ours = name, -1, false
		case section == "":
			return p, atLine(n, "comes before the first section")
		default:
			i := strings.IndexAny(line, "=:")
			if i < 0 {
				if section == f.section {
					return p, atLine(n, `is not "key = value"`)
				}
				continue
			}
			indent = depth
			ours = section == f.section && strings.EqualFold(strings.TrimSpace(line[:i]), f.key)
			if !ours {
				break
			}
			if p.line > 0 {
				return p, problem(fmt.Sprintf("has the key twice, in lines %d and %d", p.line, n))
			}
			value := strings.TrimSpace(line[i+1:])
			p.line = n
			p.start = start + i + 1 + strings.Index(line[i+1:], value)
			p.end = p.start + len(value)
		}
		if section == f.section {
			p.section, p.insert = true, pos
		}
	}
	return p, nil
}

// iniUnquote returns a value without the quotes that keywright's reader
// ignores, and the quote.
func iniUnquote(v string) (value, quote string) {
	if len(v) > 1 && (v[0] == '"' || v[0] == '\'') && v[len(v)-1] == v[0] {
		return v[1 : len(v)-1], v[:1]
	}
	return v, ""
}
