package keywright

import (
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/keywright/keywright/internal/wire"
)

// Limits for what of a peer's words is kept.
const (
	maxMessage   = 200 // bytes of a message shown in an error's text
	maxPeerText  = 4 << 10
	maxRequestID = 128
	maxFields    = 32
)

// redactor removes secrets from what a peer sent: those it knows from the
// call, and everything else that looks like one.
type redactor struct {
	known []string
	room  [1]string // for known: most calls know one token
}

func (r *redactor) add(secrets ...Secret) {
	if r.known == nil {
		r.known = r.room[:0]
	}
	for _, s := range secrets {
		if v := s.Reveal(); len(v) >= 4 {
			r.known = append(r.known, v)
		}
	}
}

// exact removes known secrets.
func (r *redactor) exact(s string) string {
	for _, k := range r.known {
		s = strings.ReplaceAll(s, k, mask)
	}
	return s
}

// text cleans a peer's text: no control characters, no known secret, no long
// run of letters and digits that could be an unknown one; bounded.
func (r *redactor) text(s string) string {
	s = r.exact(s)
	s = strings.Map(func(c rune) rune {
		if c == utf8.RuneError || unicode.IsControl(c) {
			return ' '
		}
		return c
	}, s)
	s = maskTokens(s)
	return strings.TrimSpace(shorten(s, maxPeerText))
}

// id cleans a request id, which looks like a secret by nature.
func (r *redactor) id(s string) string {
	s = r.exact(strings.Map(func(c rune) rune {
		if c <= 0x20 || c > 0x7e {
			return -1
		}
		return c
	}, s))
	if len(s) > maxRequestID {
		s = s[:maxRequestID]
	}
	return s
}

// shorten cuts s to at most n bytes, on a character's border.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// tokenRun is the length from which a run of token characters is taken for a
// secret.
const tokenRun = 20

// maskTokens masks every run of token characters that is long and mixes
// letters with digits, unless it is a UUID.
func maskTokens(s string) string {
	var b strings.Builder
	for start := 0; start < len(s); {
		end := start
		letters, digits := false, false
		for end < len(s) && isTokenByte(s[end]) {
			c := s[end]
			digits = digits || c >= '0' && c <= '9'
			letters = letters || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
			end++
		}
		run := s[start:end]
		if len(run) >= tokenRun && letters && digits && uuidProblem(run) != "" {
			b.WriteString(mask)
		} else {
			b.WriteString(run)
		}
		if end < len(s) {
			b.WriteByte(s[end])
			end++
		}
		start = end
	}
	return b.String()
}

func isTokenByte(c byte) bool {
	switch {
	case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		return true
	}
	return strings.IndexByte("-_+/=~", c) >= 0
}

// isSlug reports whether s is fit to be an error code.
func isSlug(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '_', c == '-', c == '.':
		default:
			return false
		}
	}
	return true
}

// safeHeaders are the headers of an answer that an error keeps.
var safeHeaders = [...]string{
	"Allow", "Content-Type", "Date", "Retry-After", "Server", "Via", "X-Request-Id",
	"Ratelimit", "Ratelimit-Policy", "X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset",
}

func (r *redactor) header(h http.Header) http.Header {
	out := make(http.Header)
	for _, name := range safeHeaders {
		for _, v := range h[name] {
			if name == "X-Request-Id" {
				v = r.id(v)
			}
			out[name] = append(out[name], r.text(v))
		}
	}
	return out
}

// parseAPIError fills e from an error body of either provider, in any shape
// they are known to use. It never fails: a body it cannot read leaves the
// fields empty.
func parseAPIError(e *APIError, body []byte, r *redactor) {
	o, err := wire.Open(body, wire.Lenient)
	if err != nil {
		e.Message = r.text(plainText(body, err))
		return
	}
	var rest []string // messages by field, when the body is nothing else
	known := false
	for o.Next() {
		switch string(o.Key) {
		case "error":
			known = true
			parseErrorMember(e, o, r)
		case "code":
			known = true
			e.setCode(errorText(o), r)
		case "message", "error_description":
			known = true
			e.setMessage(errorText(o), r)
		case "detail":
			known = true
			if o.Kind() == "a string" {
				e.setMessage(errorText(o), r)
				break
			}
			e.addFields("", o, r)
		case "params":
			known = true
			e.addFields("", o, r)
		case "trace_id":
			e.RequestID = r.id(errorText(o))
		default:
			if !known {
				e.addField(string(o.Key), o, r)
				rest = append(rest, string(o.Key))
			}
		}
	}
	if known {
		for _, name := range rest {
			delete(e.Fields, r.text(name))
		}
	}
	if len(e.Fields) == 0 {
		e.Fields = nil
	}
}

// plainText returns what of a body that is no object may be shown: the text
// of a JSON list or of plain text, but no markup.
func plainText(body []byte, err *wire.Error) string {
	switch {
	case err.Got == "an array", err.Got == "a string":
		o, err := wire.Open(append(append([]byte(`{"v":`), body...), '}'), wire.Lenient)
		if err != nil || !o.Next() {
			return ""
		}
		return strings.Join(messages(o), "; ")
	case err.Got == "markup", !utf8.Valid(body), strings.HasPrefix(strings.TrimSpace(string(body)), "<"):
		return ""
	}
	return string(body)
}

func parseErrorMember(e *APIError, o *wire.Object, r *redactor) {
	if o.Kind() != "an object" {
		s := errorText(o)
		if isSlug(s) {
			e.setCode(s, r)
		} else {
			e.setMessage(s, r)
		}
		return
	}
	inner := o.Object()
	for inner.Next() {
		switch string(inner.Key) {
		case "code":
			e.setCode(errorText(inner), r)
		case "message":
			e.setMessage(errorText(inner), r)
		}
	}
}

func (e *APIError) setCode(s string, r *redactor) {
	if s = r.text(s); isSlug(s) {
		e.Code = s
	}
}

func (e *APIError) setMessage(s string, r *redactor) {
	if s != "" {
		e.Message = r.text(s)
	}
}

// addFields reads an object of messages by field, or messages without one.
func (e *APIError) addFields(parent string, o *wire.Object, r *redactor) {
	if o.Kind() != "an object" {
		e.addField(parent, o, r)
		return
	}
	inner := o.Object()
	for inner.Next() {
		name := string(inner.Key)
		if parent != "" {
			name = parent + "." + name
		}
		if inner.Kind() == "an object" && strings.Count(name, ".") < 4 {
			e.addFields(name, inner, r)
			continue
		}
		e.addField(name, inner, r)
	}
}

func (e *APIError) addField(name string, o *wire.Object, r *redactor) {
	texts := messages(o)
	if len(texts) == 0 || len(e.Fields) >= maxFields {
		return
	}
	for i := range texts {
		texts[i] = r.text(texts[i])
	}
	if name == "" {
		e.setMessage(strings.Join(texts, "; "), r)
		return
	}
	if e.Fields == nil {
		e.Fields = make(map[string][]string)
	}
	name = r.text(name)
	e.Fields[name] = append(e.Fields[name], texts...)
}

// messages reads a string, or an array of strings, as bounded texts.
func messages(o *wire.Object) []string {
	var out []string
	switch o.Kind() {
	case "a string":
		out = []string{errorText(o)}
	case "an array":
		wire.Strings(o, &out)
	}
	return out[:min(len(out), maxFields)]
}

// errorText reads a string and nothing else.
func errorText(o *wire.Object) string {
	var s string
	if o.Kind() == "a string" {
		o.String(&s)
	}
	return s
}
