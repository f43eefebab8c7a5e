package sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
)

// JSON returns a sink that is a string in a JSON file, named by a pointer (RFC
// 6901) such as "/mcpServers/ricloud/env/RICLOUD_TOKEN". Nothing but the bytes
// of that string changes. The object it is in must be there; the member itself
// is added to it if it is absent. What is not a string is refused, as is a
// member on the way that is there twice.
//
// Programs read such a file when they start, so that they keep the old token
// until then, unless [WithLag] says otherwise.
func JSON(path, pointer string, opts ...FileOption) Sink {
	parts, invalid := parsePointer(pointer)
	return newFileSink("json "+path+" "+pointer, path, maxConfigFile, jsonFormat{parts}, invalid).with(opts)
}

func parsePointer(pointer string) ([]string, error) {
	rest, ok := strings.CutPrefix(pointer, "/")
	if !ok {
		return nil, problem(`the pointer does not start with "/"`)
	}
	parts := strings.Split(rest, "/")
	for i, p := range parts {
		if strings.Contains(strings.NewReplacer("~0", "", "~1", "").Replace(p), "~") {
			return nil, problem(`the pointer has a "~" that is not "~0" or "~1"`)
		}
		parts[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(p)
	}
	return parts, nil
}

// jsonFormat is one string of a JSON file.
type jsonFormat struct{ pointer []string }

// jsonPlace is where in a text the string is, quotes included, or where and
// how it can be added.
type jsonPlace struct {
	found      bool
	start, end int
	member     func(quoted string) string // what to put at start for an absent one
}

func (f jsonFormat) get(content []byte) (string, error) {
	if len(content) == 0 {
		return "", nil
	}
	p, err := f.find(content)
	if err != nil || !p.found {
		return "", err
	}
	var s string
	if err := json.Unmarshal(content[p.start:p.end], &s); err != nil {
		return "", problem("holds a string that cannot be read")
	}
	return s, nil
}

func (f jsonFormat) set(content []byte, token string) ([]byte, error) {
	if len(content) == 0 {
		return nil, problem("does not exist or is empty; make it, with the object that the token belongs into")
	}
	p, err := f.find(content)
	if err != nil {
		return nil, err
	}
	// A token is printable ASCII.
	quoted := `"` + strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(token) + `"`
	if !p.found {
		quoted = p.member(quoted)
	}
	return bytes.Join([][]byte{content[:p.start], []byte(quoted), content[p.end:]}, nil), nil
}

func (f jsonFormat) find(content []byte) (jsonPlace, error) {
	mark := len(content) - len(bytes.TrimPrefix(content, []byte(byteOrderMark)))
	text := content[mark:]
	var syntax *json.SyntaxError
	if err := json.Unmarshal(text, new(json.RawMessage)); errors.As(err, &syntax) {
		line := 1 + bytes.Count(text[:min(int(syntax.Offset), len(text))], []byte("\n"))
		return jsonPlace{}, atLine(line, "is not JSON")
	} else if err != nil {
		return jsonPlace{}, problem("is not JSON")
	}
	s := jsonScanner{text: text, dec: json.NewDecoder(bytes.NewReader(text))}
	s.dec.UseNumber()
	p, err := s.value(f.pointer, "")
	p.start += mark
	p.end += mark
	return p, err
}

// jsonScanner goes through a valid text.
type jsonScanner struct {
	text []byte
	dec  *json.Decoder
}

// token returns the next token and where it is.
func (s *jsonScanner) token() (t json.Token, start, end int, err error) {
	start = int(s.dec.InputOffset())
	t, err = s.dec.Token()
	if err != nil {
		return nil, 0, 0, problem("is not JSON")
	}
	end = int(s.dec.InputOffset())
	for start < end && bytes.IndexByte([]byte(" \t\r\n,:"), s.text[start]) >= 0 {
		start++
	}
	return t, start, end, nil
}

// value goes to the end of the value that comes next, and finds what pointer names
// in it. path is the way there.
func (s *jsonScanner) value(pointer []string, path string) (jsonPlace, error) {
	t, start, end, err := s.token()
	if err != nil {
		return jsonPlace{}, err
	}
	if len(pointer) == 0 {
		if _, ok := t.(string); !ok {
			return jsonPlace{}, problem(path + " is not a string")
		}
		return jsonPlace{found: true, start: start, end: end}, nil
	}
	switch t {
	case json.Delim('{'):
		return s.object(pointer, path, end)
	case json.Delim('['):
		return s.array(pointer, path)
	}
	if path == "" {
		path = "the file"
	}
	return jsonPlace{}, problem(path + " is not an object")
}

// object goes through an object whose "{" ends at open.
func (s *jsonScanner) object(pointer []string, path string, open int) (place jsonPlace, err error) {
	name, path := pointer[0], path+"/"+pointer[0]
	found := false
	space, colon, last := "", ": ", open // of the last member: white space before it, its colon, its end
	for s.dec.More() {
		key, start, end, err := s.token()
		if err != nil {
			return place, err
		}
		space = string(s.text[last:start])
		space = space[strings.IndexByte(space, ',')+1:]
		rest := s.text[end:]
		colon = string(rest[:len(rest)-len(bytes.TrimLeft(rest, " \t\r\n:"))])
		switch {
		case key != name:
			err = s.skip()
		case found:
			return place, problem(path + " is there twice")
		default:
			found = true
			place, err = s.value(pointer[1:], path)
		}
		if err != nil {
			return place, err
		}
		last = int(s.dec.InputOffset())
	}
	_, _, end, err := s.token() // the "}"
	switch {
	case err != nil || found:
		return place, err
	case len(pointer) > 1:
		return place, problem(path + " is not there; make it first")
	}
	place.start, place.end = last, last
	quotedName, err := json.Marshal(name)
	if err != nil {
		return place, problem("the pointer cannot be written as JSON")
	}
	comma := ","
	if last == open {
		comma = ""
		inside := string(s.text[open : end-1])
		if i := strings.LastIndexByte(inside, '\n'); i >= 0 { // the braces are on lines of their own
			space = newline(inside) + inside[i+1:] + "  "
		}
	} else if space == "" && strings.HasSuffix(colon, " ") {
		space = " "
	}
	place.member = func(quoted string) string { return comma + space + string(quotedName) + colon + quoted }
	return place, nil
}

// array goes through an array.
func (s *jsonScanner) array(pointer []string, path string) (place jsonPlace, err error) {
	path += "/" + pointer[0]
	want, err := strconv.Atoi(pointer[0])
	if err != nil || strconv.Itoa(want) != pointer[0] || want < 0 {
		return place, problem(path + " is in an array; want the number of an element")
	}
	found := false
	for i := 0; s.dec.More(); i++ {
		if i == want {
			found = true
			place, err = s.value(pointer[1:], path)
		} else {
			err = s.skip()
		}
		if err != nil {
			return place, err
		}
	}
	if !found {
		return place, problem(path + " is not there; make it first")
	}
	_, _, _, err = s.token() // the "]"
	return place, err
}

// skip goes to the end of the value that comes next.
func (s *jsonScanner) skip() error {
	for depth := 0; ; {
		t, _, _, err := s.token()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}
