package sink

import (
	"fmt"
	"strings"
)

// Dotenv returns a sink that is the value of a variable in a dotenv file.
// Everything else in the file stays as it is. A variable that is absent is
// added at the end; one that is set twice is refused.
//
// A token that needs quotes gets single ones if it can, which sh, Docker
// Compose and the dotenv libraries read alike. Programs read such a file when
// they start, so that they keep the old token until then, unless [WithLag]
// says otherwise.
func Dotenv(path, variable string, opts ...FileOption) Sink {
	var invalid error
	if !isVariable(variable) {
		invalid = problem("the variable's name is not one: want letters, digits and _")
	}
	return newFileSink("dotenv "+path+" "+variable, path, maxConfigFile, dotenvFormat{variable}, invalid).with(opts)
}

func isVariable(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && c != '_' && (i == 0 || !isDigit(c)) {
			return false
		}
	}
	return s != ""
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func isDigit(c byte) bool  { return '0' <= c && c <= '9' }

// dotenvFormat is one variable of a dotenv file.
type dotenvFormat struct{ variable string }

// assignment is where the variable is set: content[start:end] is its value,
// quotes included.
type assignment struct {
	line       int
	start, end int
}

func (d dotenvFormat) get(content []byte) (string, error) {
	text := string(content)
	a, err := d.find(text)
	if err != nil || a == nil {
		return "", err
	}
	return dotenvUnquote(text[a.start:a.end], a.line)
}

func (d dotenvFormat) set(content []byte, token string) ([]byte, error) {
	text := string(content)
	a, err := d.find(text)
	if err != nil {
		return nil, err
	}
	if a == nil {
		text = endLine(text)
		return []byte(text + d.variable + "=" + dotenvQuote("", token) + newline(text)), nil
	}
	return []byte(text[:a.start] + dotenvQuote(text[a.start:a.end], token) + text[a.end:]), nil
}

// find returns where the variable is set, or nil.
func (d dotenvFormat) find(text string) (*assignment, error) {
	if err := checkText(text); err != nil {
		return nil, err
	}
	var found *assignment
	s := dotenvScanner{text: text, pos: len(text) - len(strings.TrimPrefix(text, byteOrderMark)), line: 1}
	for s.pos < len(text) {
		name, colon := s.name()
		if colon && name == d.variable {
			return nil, atLine(s.line, "sets the variable with a colon, which not all readers understand; use =")
		}
		if name == "" || colon {
			s.skipLine()
			continue
		}
		a, plain, err := s.value()
		if err != nil {
			return nil, err
		}
		if name == d.variable {
			switch {
			case found != nil:
				return nil, problem(fmt.Sprintf("sets the variable twice, in lines %d and %d", found.line, a.line))
			case !plain:
				return nil, atLine(a.line, "has something behind the closing quote")
			}
			found = &a
		}
		s.skipLine()
	}
	return found, nil
}

// dotenvScanner goes through a file line by line, and through quoted values of
// several lines in one step.
type dotenvScanner struct {
	text string
	pos  int
	line int
}

func (s *dotenvScanner) at(set string) bool {
	return s.pos < len(s.text) && strings.IndexByte(set, s.text[s.pos]) >= 0
}

func (s *dotenvScanner) skip(set string) {
	for s.at(set) {
		s.pos++
	}
}

// name returns the variable that the line sets, and leaves pos behind the "="
// or, which some readers take too, the colon. It is "" for any other line.
func (s *dotenvScanner) name() (name string, colon bool) {
	s.skip(blanks)
	name = s.word()
	if name == "export" && s.at(blanks) {
		before := s.pos
		s.skip(blanks)
		if next := s.word(); next != "" {
			name = next
		} else {
			s.pos = before // a variable called export
		}
	}
	s.skip(blanks)
	colon = s.at(":")
	if !colon && !s.at("=") {
		return "", false
	}
	s.pos++
	return name, colon
}

// word returns the name at pos. Names of others may have dots and hyphens.
func (s *dotenvScanner) word() string {
	start := s.pos
	for s.pos < len(s.text) {
		if c := s.text[s.pos]; !isLetter(c) && !isDigit(c) && c != '_' && c != '.' && c != '-' {
			break
		}
		s.pos++
	}
	return s.text[start:s.pos]
}

// value returns where the value at pos is. plain says that nothing but a
// comment follows it.
func (s *dotenvScanner) value() (a assignment, plain bool, err error) {
	a = assignment{line: s.line, start: s.pos, end: s.pos}
	s.skip(blanks)
	if !s.at(`'"` + "`") {
		if n := unquotedLength(s.text[a.end:s.pos], s.text[s.pos:]); n > 0 {
			a.start, a.end = s.pos, s.pos+n
		}
		return a, true, nil
	}
	a.start, a.end = s.pos, 0
	// What follows a closing quote at once belongs to the value, as in sh.
	for s.at(`'"` + "`") {
		if err := s.quoted(); err != nil {
			return a, false, err
		}
		if a.end == 0 {
			a.end = s.pos
		}
		for s.pos < len(s.text) && !s.at(" \t\r\n'\"`") {
			if s.text[s.pos] == '\\' && s.pos+1 < len(s.text) && s.text[s.pos+1] != '\n' && s.text[s.pos+1] != '\r' {
				s.pos++
			}
			s.pos++
		}
	}
	plain = s.pos == a.end
	s.skip(blanks)
	return a, plain && (s.pos == len(s.text) || s.at("#\r\n")), nil
}

// quoted moves pos behind the quoted text there.
func (s *dotenvScanner) quoted() error {
	quote, line := s.text[s.pos], s.line
	for s.pos++; s.pos < len(s.text); s.pos++ {
		switch c := s.text[s.pos]; {
		case c == '\n':
			s.line++
		case c == '\\' && quote != '\'' && s.pos+1 < len(s.text):
			if s.pos++; s.text[s.pos] == '\n' {
				s.line++
			}
		case c == quote && quote == '\'' && s.text[s.pos-1] == '\\':
			return atLine(s.line, "has a backslash before a single quote, which readers do not agree about")
		case c == quote:
			s.pos++
			return nil
		}
	}
	return atLine(line, "has a quote that is not closed")
}

func (s *dotenvScanner) skipLine() {
	i := strings.IndexByte(s.text[s.pos:], '\n')
	if i < 0 {
		s.pos = len(s.text)
		return
	}
	s.pos += i + 1
	s.line++
}

// unquotedLength returns how long the value is that text begins with, after
// some blanks: up to the end of the line or a comment.
func unquotedLength(before, text string) int {
	if i := strings.IndexByte(text, '\n'); i >= 0 {
		text = text[:i]
	}
	for i := range len(text) {
		if text[i] == '#' && (i == 0 && before != "" || i > 0 && strings.IndexByte(blanks, text[i-1]) >= 0) {
			text = text[:i]
			break
		}
	}
	return len(strings.TrimRight(text, " \t\r"))
}

// Characters of tokens.
const (
	// bareOthers are those that need no quotes besides letters and digits.
	bareOthers = "_-./:@%+,="
	// escaped are those that need a backslash between double quotes.
	escaped = `"\$` + "`"
)

// dotenvQuote returns token as a value: in the style of old if that is safe.
func dotenvQuote(old, token string) string {
	bare := true
	for i := range len(token) {
		if c := token[i]; !isLetter(c) && !isDigit(c) && strings.IndexByte(bareOthers, c) < 0 {
			bare = false
		}
	}
	single := !strings.Contains(token, "'") && !strings.HasSuffix(token, `\`)
	switch {
	case bare && (old == "" || old[0] != '\'' && old[0] != '"'):
		return token
	case old != "" && old[0] == '"' && !strings.ContainsAny(token, escaped):
		return `"` + token + `"`
	case single:
		return "'" + token + "'"
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(token) {
		if strings.IndexByte(escaped, token[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(token[i])
	}
	b.WriteByte('"')
	return b.String()
}

// dotenvUnquote returns what a value means, if all readers agree about it.
func dotenvUnquote(value string, line int) (string, error) {
	if value == "" {
		return "", nil
	}
	switch value[0] {
	case '\'':
		return value[1 : len(value)-1], nil
	case '`':
		return "", atLine(line, "has a value in backquotes, which a shell takes for a command")
	case '"':
		value = value[1 : len(value)-1]
	default:
		if value[0] == '#' || strings.ContainsAny(value, escaped+"'") {
			return "", atLine(line, "has a value with quotes, #, $ or a backslash in it, which readers do not agree about; put it between single quotes")
		}
		return value, nil
	}
	var b strings.Builder
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c == '\\':
			if i++; i == len(value) || strings.IndexByte(escaped, value[i]) < 0 {
				return "", atLine(line, "has an escape in the value that readers do not agree about")
			}
		case strings.IndexByte(escaped, c) >= 0:
			return "", atLine(line, "has a value that refers to another variable or a command")
		}
		b.WriteByte(value[i])
	}
	return b.String(), nil
}
