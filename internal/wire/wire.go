// Package wire reads the JSON of both providers liberally and exactly.
//
// The providers' documents disagree with each other and with themselves: a
// reference is an id or a whole object, an id is a number or a string, a list
// is an array or an object around one. A struct decoder cannot express that,
// matches names without regard to case (so "Token" would pass for "token"),
// repairs broken Unicode in silence and cannot say which field was wrong.
//
// So encoding/json decides whether a body is JSON at all, and an [Object]
// then walks what is known to be valid, one member at a time, straight from
// the body's bytes. What no one consumed is kept as the object's Unknown.
package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Error says where a value is not what it should be. It never holds a value
// from the body, only the name of its kind.
type Error struct {
	Path string // members and indexes from the top, "data[3].token"; empty for the whole body
	Want string
	Got  string
}

// Error implements error.
func (e *Error) Error() string {
	if e.Path == "" {
		return "want " + e.Want + ", got " + e.Got
	}
	return e.Path + ": want " + e.Want + ", got " + e.Got
}

// reader is a position in a body that json.Valid has accepted; that is why
// none of its methods checks bounds or syntax.
type reader struct {
	b       []byte
	i       int
	err     *Error
	lenient bool
}

// Object walks the members of one JSON object.
//
//	for o.Next() {
//		switch string(o.Key) {
//		case "id":
//			o.Int(&id)
//		}
//	}
//
// A member that is not consumed before the next call of Next is added to
// Unknown. The first error ends every loop over the same body.
type Object struct {
	Key     []byte   // name of the current member, unescaped
	Unknown []Member // what no one consumed; nulls, which say nothing, left out

	r       *reader
	up      *Object
	index   int  // position in a list, -1 outside of one
	pending bool // the current member's value has not been read
	loose   bool // the current member may have any shape
	done    bool
}

// Member is a member of an object as it was sent. JSON aliases the body.
type Member struct {
	Name string
	JSON []byte
}

// Mode says what a field of the wrong shape does.
type Mode bool

const (
	// Strict makes a field of the wrong shape an error.
	Strict Mode = false
	// Lenient leaves a field of the wrong shape to Unknown and goes on: for
	// answers that carry a secret which exists nowhere else.
	Lenient Mode = true
)

// Open checks that b is one JSON value and returns the object it is.
func Open(b []byte, mode Mode) (*Object, *Error) {
	if err := check(b); err != nil {
		return nil, err
	}
	root := &struct { // one allocation for both
		r reader
		o Object
	}{r: reader{b: b, lenient: bool(mode)}}
	r := &root.r
	r.space()
	if kind := r.kind(); kind != "an object" {
		return nil, &Error{Want: "an object", Got: kind}
	}
	r.i++
	root.o = Object{r: r, index: -1}
	return &root.o, nil
}

func check(b []byte) *Error {
	if json.Valid(b) {
		return nil
	}
	t := bytes.TrimSpace(b)
	switch {
	case len(t) == 0:
		return &Error{Want: "JSON", Got: "an empty body"}
	case t[0] == '<':
		return &Error{Want: "JSON", Got: "markup"}
	}
	got := "something else"
	var raw json.RawMessage
	var syntax *json.SyntaxError
	if errors.As(json.Unmarshal(b, &raw), &syntax) {
		got = "a syntax error at byte " + strconv.FormatInt(syntax.Offset, 10)
	}
	return &Error{Want: "JSON", Got: got}
}

// Next moves to the next member and reports whether there is one.
func (o *Object) Next() bool {
	r := o.r
	if o.done || r.err != nil {
		return false
	}
	if o.pending {
		o.keep()
	}
	r.space()
	switch r.b[r.i] {
	case '}':
		r.i++
		o.done = true
		return false
	case ',':
		r.i++
		r.space()
	}
	o.Key = r.text()
	r.space()
	r.i++ // the colon
	r.space()
	o.pending, o.loose = true, false
	return true
}

// Loose says that nobody knows what shape the current member has: one of the
// wrong shape is left to Unknown in any mode.
func (o *Object) Loose() *Object {
	o.loose = true
	return o
}

// Err returns the first error met anywhere in the body.
func (o *Object) Err() *Error { return o.r.err }

// maxUnknown bounds what is kept of a hostile body.
const maxUnknown = 256

// keep adds an unconsumed value to Unknown.
func (o *Object) keep() {
	if raw := o.Raw(); string(raw) != "null" && len(o.Unknown) < maxUnknown {
		o.Unknown = append(o.Unknown, Member{string(o.Key), raw})
	}
}

// Raw consumes the current value and returns its bytes, which alias the body.
func (o *Object) Raw() []byte {
	start := o.r.i
	o.r.skip()
	o.pending = false
	return o.r.b[start:o.r.i]
}

// Skip consumes the current value.
func (o *Object) Skip() { o.Raw() }

// Null consumes the current value if it is null and reports whether it was.
func (o *Object) Null() bool {
	if o.r.b[o.r.i] != 'n' {
		return false
	}
	o.Skip()
	return true
}

// Fail records that the current value is not what is wanted. In lenient mode
// the value is left to Unknown instead.
func (o *Object) Fail(want, got string) {
	if !o.r.lenient && !o.loose {
		o.Fatal(want, got)
	}
}

// Fatal records an error that lenient mode does not excuse either.
func (o *Object) Fatal(want, got string) {
	if o.r.err == nil {
		o.r.err = &Error{Path: o.path(), Want: want, Got: got}
	}
}

// Kind names the kind of the current value, with its article.
func (o *Object) Kind() string { return o.r.kind() }

func (o *Object) path() string {
	var b strings.Builder
	o.writePath(&b)
	return b.String()
}

func (o *Object) writePath(b *strings.Builder) {
	if o.up != nil {
		o.up.writePath(b)
	}
	if o.index >= 0 {
		b.WriteByte('[')
		b.WriteString(strconv.Itoa(o.index))
		b.WriteByte(']')
	}
	if len(o.Key) == 0 {
		return
	}
	if b.Len() > 0 {
		b.WriteByte('.')
	}
	b.Write(pathName(o.Key))
}

// pathName keeps a peer's member name fit for one line of text: a name that
// is long or not a plain word could be anything, a secret included.
func pathName(key []byte) []byte {
	if len(key) > 40 {
		return []byte("(long name)")
	}
	for _, c := range key {
		if c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return []byte("(odd name)")
		}
	}
	return key
}

// String reads a string; null leaves dst alone.
func (o *Object) String(dst *string) {
	if s, ok := o.text(); ok {
		*dst = string(s)
	}
}

// StringPtr reads a string that may be null.
func (o *Object) StringPtr(dst **string) {
	if s, ok := o.text(); ok {
		v := string(s)
		*dst = &v
	}
}

// Enum reads a string into an enumeration. Unknown values are kept; known
// ones share their constant's memory.
func Enum[T ~string](o *Object, dst *T, known ...T) {
	s, ok := o.text()
	if !ok {
		return
	}
	for _, k := range known {
		if string(s) == string(k) {
			*dst = k
			return
		}
	}
	*dst = T(s)
}

// text consumes a string and returns it unescaped. The result may alias the
// body.
func (o *Object) text() ([]byte, bool) {
	if o.Null() {
		return nil, false
	}
	if o.r.b[o.r.i] != '"' {
		o.Fail("a string", o.Kind())
		return nil, false
	}
	o.pending = false
	return o.r.text(), true
}

// Bool reads a boolean; null leaves dst alone.
func (o *Object) Bool(dst *bool) {
	if o.Null() {
		return
	}
	switch o.r.b[o.r.i] {
	case 't', 'f':
		*dst = o.r.b[o.r.i] == 't'
		o.Skip()
	default:
		o.Fail("a boolean", o.Kind())
	}
}

// BoolPtr reads a boolean that may be null.
func (o *Object) BoolPtr(dst **bool) {
	if o.Null() {
		return
	}
	if c := o.r.b[o.r.i]; c == 't' || c == 'f' {
		v := new(bool)
		o.Bool(v)
		*dst = v
		return
	}
	o.Fail("a boolean", o.Kind())
}

// Float reads a number, which may be quoted; null leaves dst alone.
func (o *Object) Float(dst *float64) {
	if o.Null() {
		return
	}
	s, ok := o.number()
	if !ok {
		o.Fail("a number", o.Kind())
		return
	}
	v, err := strconv.ParseFloat(string(s), 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		o.Fail("a number", "a number out of range")
	case err != nil || math.IsNaN(v) || math.IsInf(v, 0):
		o.Fail("a number", o.Kind())
	default:
		*dst = v
		o.Skip()
	}
}

// FloatPtr reads a number that may be null.
func (o *Object) FloatPtr(dst **float64) {
	if o.Null() {
		return
	}
	v := math.NaN()
	if o.Float(&v); !math.IsNaN(v) {
		*dst = &v
	}
}

// Int reads a whole number, which may be quoted; null leaves dst alone.
func Int[T ~int | ~int64](o *Object, dst *T) {
	if o.Null() {
		return
	}
	s, ok := o.number()
	if !ok {
		o.Fail("a whole number", o.Kind())
		return
	}
	v, problem := parseInt(s)
	if problem != "" {
		o.Fail("a whole number", problem)
		return
	}
	*dst = T(v)
	o.Skip()
}

// Seconds reads a number of seconds; null leaves dst alone.
func (o *Object) Seconds(dst **time.Duration) {
	if o.Null() {
		return
	}
	v := math.NaN()
	if o.Float(&v); math.IsNaN(v) {
		return
	}
	const limit = float64(math.MaxInt64) / float64(time.Second)
	if math.Abs(v) >= limit {
		o.Fatal("a number of seconds", "a number out of range")
		return
	}
	d := time.Duration(v * float64(time.Second))
	*dst = &d
}

// number returns the text of a number or of a string, without consuming it.
func (o *Object) number() ([]byte, bool) {
	switch c := o.r.b[o.r.i]; {
	case c == '-' || c >= '0' && c <= '9':
		return o.peek(), true
	case c == '"':
		s := o.peek()
		return s[1 : len(s)-1], true
	}
	return nil, false
}

// peek returns the bytes of the current value without consuming it.
func (o *Object) peek() []byte {
	start := o.r.i
	o.r.skip()
	raw := o.r.b[start:o.r.i]
	o.r.i = start
	return raw
}

func parseInt(s []byte) (v int64, problem string) {
	v, err := strconv.ParseInt(string(s), 10, 64)
	if err == nil {
		return v, ""
	}
	if errors.Is(err, strconv.ErrRange) {
		return 0, "a number out of range"
	}
	f, err := strconv.ParseFloat(string(s), 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, "a number out of range"
	case err != nil:
		return 0, "other text"
	case f != math.Trunc(f):
		return 0, "a fraction"
	case math.Abs(f) >= 1<<53:
		return 0, "a number out of range"
	}
	return int64(f), ""
}

// IntRef reads an id that must be a whole number. It may be quoted, or stand
// inside the whole object it refers to. Null leaves dst alone. Lenient mode
// does not excuse a wrong id: it says which resource an answer is about.
func IntRef[T ~int64](o *Object, dst *T) {
	if inner := o.nested(); inner != nil {
		for inner.Next() {
			if string(inner.Key) == "id" {
				IntRef(inner, dst)
			}
		}
		return
	}
	if o.Null() {
		return
	}
	s, ok := o.number()
	if !ok {
		o.Fatal("a number, a string or an object", o.Kind())
		return
	}
	v, problem := parseInt(s)
	if problem != "" {
		o.Fatal("a whole number", problem)
		return
	}
	*dst = T(v)
	o.Skip()
}

// IntRefPtr is [IntRef] for a reference that may be null.
func IntRefPtr[T ~int64](o *Object, dst **T) {
	if o.Null() {
		return
	}
	v := new(T)
	if IntRef(o, v); o.Err() == nil && *v != 0 {
		*dst = v
	}
}

// StringRef reads an id that is a string. It may be a number, or stand inside
// the whole object it refers to. Null leaves dst alone.
func StringRef[T ~string](o *Object, dst *T) {
	if inner := o.nested(); inner != nil {
		for inner.Next() {
			if string(inner.Key) == "id" {
				StringRef(inner, dst)
			}
		}
		return
	}
	if o.Null() {
		return
	}
	s, ok := o.number()
	if !ok {
		o.Fatal("a number, a string or an object", o.Kind())
		return
	}
	if bytes.IndexByte(s, '\\') >= 0 {
		t, _ := o.text()
		*dst = T(t)
		return
	}
	*dst = T(s)
	o.Skip()
}

// StringRefPtr is [StringRef] for a reference that may be null.
func StringRefPtr[T ~string](o *Object, dst **T) {
	if o.Null() {
		return
	}
	v := new(T)
	if StringRef(o, v); o.Err() == nil && *v != "" {
		*dst = v
	}
}

// Time reads an RFC 3339 time as UTC; one without a zone is taken as UTC.
// Null leaves dst alone.
func (o *Object) Time(dst *time.Time) {
	if o.Null() {
		return
	}
	const want = "an RFC 3339 time"
	if o.r.b[o.r.i] != '"' {
		o.Fail(want, o.Kind())
		return
	}
	raw := o.peek()
	s := raw[1 : len(raw)-1]
	if len(s) == 0 {
		o.Fail(want, "an empty string")
		return
	}
	t, err := time.Parse(time.RFC3339, string(s))
	if err != nil {
		t, err = time.Parse("2006-01-02T15:04:05", string(s))
	}
	if err != nil {
		o.Fail(want, "other text")
		return
	}
	*dst = t.UTC()
	o.Skip()
}

// TimePtr reads a time that may be null.
func (o *Object) TimePtr(dst **time.Time) {
	if o.Null() {
		return
	}
	var t time.Time
	if o.Time(&t); !t.IsZero() {
		*dst = &t
	}
}

// UnixSecondsPtr reads seconds since the epoch, or an RFC 3339 time, that may
// be null.
func (o *Object) UnixSecondsPtr(dst **time.Time) {
	if o.r.b[o.r.i] == '"' {
		o.TimePtr(dst)
		return
	}
	if o.Null() {
		return
	}
	v := math.NaN()
	if o.Float(&v); math.IsNaN(v) {
		return
	}
	t := time.Unix(int64(v), 0).UTC()
	*dst = &t
}

// Strings reads an array of strings; null leaves dst alone.
func Strings[T ~string](o *Object, dst *[]T) {
	if o.Null() {
		return
	}
	if o.r.b[o.r.i] != '[' {
		o.Fail("an array", o.Kind())
		return
	}
	out := []T{}
	for _, raw := range elements(o.peek()) {
		if raw[0] != '"' {
			o.Fail("an array of strings", "an array of other things")
			return
		}
		inner := reader{b: raw}
		out = append(out, T(inner.text()))
	}
	*dst = out
	o.Skip()
}

// elements returns the raw elements of a valid array.
func elements(raw []byte) [][]byte {
	var out [][]byte
	r := reader{b: raw, i: 1}
	for r.more() {
		start := r.i
		r.skip()
		out = append(out, raw[start:r.i])
	}
	return out
}

// Object enters the current value. It returns nil for null, and after an
// error for anything that is not an object. The caller reads it to its end.
func (o *Object) Object() *Object {
	if o.Null() {
		return nil
	}
	inner := o.nested()
	if inner == nil {
		o.Fail("an object", o.Kind())
	}
	return inner
}

func (o *Object) nested() *Object {
	if o.r.b[o.r.i] != '{' {
		return nil
	}
	o.r.i++
	o.pending = false
	return &Object{r: o.r, up: o, index: -1}
}

// List hands each object of a list to item; an id in place of an object becomes
// an object with nothing but that id. The list is an array, or an object that
// holds one as data, items or results; null is empty. What item does not read
// is dropped.
func (o *Object) List(item func(*Object)) {
	switch o.r.b[o.r.i] {
	case '[':
		o.pending = false
		o.r.i++
		o.r.each(&Object{r: o.r, up: o}, item, true)
	case '{':
		inner := o.nested()
		for inner.Next() {
			if isItems(inner.Key) && inner.r.b[inner.r.i] == '[' {
				inner.List(item)
			}
		}
	default:
		if !o.Null() {
			o.Fail("a list", o.Kind())
		}
	}
}

func isItems(key []byte) bool {
	switch string(key) {
	case "data", "items", "results":
		return true
	}
	return false
}

// each reads the rest of an array, its bracket behind it, into one Object
// that is used again for every element. refs allows ids in place of objects.
func (r *reader) each(el *Object, item func(*Object), refs bool) {
	for el.index = 0; r.err == nil && r.more(); el.index++ {
		switch kind := r.b[r.i]; {
		case kind == '{':
		case refs && kind != '[' && kind != 'n' && kind != 't' && kind != 'f':
			shape := r.kind()
			start := r.i
			r.skip()
			ref, err := Open([]byte(`{"id":`+string(r.b[start:r.i])+"}"), Strict)
			if err == nil {
				item(ref)
				err = ref.Err()
			}
			if err != nil {
				el.Key = nil
				el.Fatal("an object or an id", shape)
				return
			}
			continue
		default:
			el.Key = nil
			el.Fatal("an object", r.kind())
			return
		}
		r.i++
		el.Key, el.Unknown, el.pending, el.done = nil, nil, false, false
		item(el)
		for el.Next() { // whatever item left unread
			el.Skip()
		}
	}
}

// Envelope is what surrounds the items of a page.
type Envelope struct {
	HasMore    bool
	HasMoreSet bool   // the provider sent has_more
	Total      int    // total_count or count; -1 when absent
	URL        string // the list's own path at ricloud
}

// Page is a list response that is known to be JSON: an object with its items
// under data, items or results, or a bare array.
type Page struct{ b []byte }

// OpenPage checks that b is one JSON value.
func OpenPage(b []byte) (Page, *Error) { return Page{b}, check(b) }

// Last returns the id of the page's last item and whether the provider says
// that more follow, without decoding the items. It returns "" when the page
// has no items or is not what it should be; Each then says why.
func (p Page) Last() (id string, hasMore bool) {
	r := &reader{b: p.b}
	r.space()
	if r.b[r.i] != '{' {
		return "", false
	}
	r.i++
	o := &Object{r: r, index: -1}
	var last []byte
	for o.Next() {
		switch {
		case isItems(o.Key) && r.b[r.i] == '[':
			o.pending = false
			r.i++
			for r.more() {
				start := r.i
				r.skip()
				last = r.b[start:r.i]
			}
		case string(o.Key) == "has_more":
			o.Bool(&hasMore)
		}
	}
	if r.err != nil || len(last) == 0 || last[0] != '{' {
		return "", false
	}
	item := &Object{r: &reader{b: last, i: 1}, index: -1}
	for item.Next() {
		if string(item.Key) == "id" {
			StringRef(item, &id)
		}
	}
	return id, hasMore
}

// Each hands every item to item and returns what surrounds them.
func (p Page) Each(item func(*Object)) (Envelope, *Error) {
	env := Envelope{Total: -1}
	r := &reader{b: p.b}
	r.space()
	switch r.b[r.i] {
	case '[':
		r.i++
		r.each(&Object{r: r}, item, false)
		return env, r.err
	case '{':
		r.i++
	default:
		return env, &Error{Want: "a list", Got: r.kind()}
	}
	found := false
	o := &Object{r: r, index: -1}
	for o.Next() {
		switch string(o.Key) {
		case "data", "items", "results":
			switch {
			case r.b[r.i] != '[':
				o.Fatal("an array", o.Kind())
			case found:
				o.Fatal("one list of items", "two")
			default:
				found = true
				o.pending = false
				r.i++
				r.each(&Object{r: r, up: o}, item, false)
			}
		case "has_more":
			env.HasMoreSet = true
			o.Bool(&env.HasMore)
		case "total_count", "count":
			Int(o, &env.Total)
		case "url":
			o.String(&env.URL)
		}
	}
	if r.err == nil && !found {
		return env, &Error{Want: `an array "data", "items" or "results"`, Got: "an object without"}
	}
	return env, r.err
}

// space skips white space.
func (r *reader) space() {
	for r.i < len(r.b) {
		switch r.b[r.i] {
		case ' ', '\n', '\r', '\t':
			r.i++
		default:
			return
		}
	}
}

// more moves to the next element of an array and reports whether there is
// one; it consumes the closing bracket.
func (r *reader) more() bool {
	r.space()
	switch r.b[r.i] {
	case ']':
		r.i++
		return false
	case ',':
		r.i++
		r.space()
	}
	return true
}

// kind names the value at the position.
func (r *reader) kind() string {
	switch r.b[r.i] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}

// skip moves past one value.
func (r *reader) skip() {
	depth := 0
	for {
		switch r.b[r.i] {
		case '"':
			r.skipString()
		case '{', '[':
			depth++
			r.i++
		case '}', ']':
			depth--
			r.i++
		case ' ', '\n', '\r', '\t', ',', ':':
			r.i++
			continue
		default:
			for r.i < len(r.b) && !ends(r.b[r.i]) {
				r.i++
			}
		}
		if depth == 0 {
			return
		}
	}
}

func ends(c byte) bool {
	switch c {
	case ',', '}', ']', ' ', '\n', '\r', '\t', ':':
		return true
	}
	return false
}

func (r *reader) skipString() {
	r.i++
	for {
		n := bytes.IndexByte(r.b[r.i:], '"')
		end := r.i + n
		r.i = end + 1
		// A quote ends the string unless an odd run of backslashes precedes it.
		slashes := 0
		for r.b[end-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return
		}
	}
}

// text consumes a string and returns what it says. The result may alias the
// body. Broken Unicode becomes U+FFFD, as in encoding/json.
func (r *reader) text() []byte {
	start := r.i
	r.skipString()
	s := r.b[start+1 : r.i-1]
	if bytes.IndexByte(s, '\\') < 0 && utf8.Valid(s) {
		return s
	}
	var out string
	_ = json.Unmarshal(r.b[start:r.i], &out) // cannot fail: the body is valid
	return []byte(out)
}

// ExactString consumes a string that must arrive as it was sent: what
// encoding/json would repair is reported as a problem instead.
func (o *Object) ExactString() (s, problem string) {
	raw := o.peek()
	if raw[0] != '"' {
		return "", o.Kind()
	}
	if !utf8.Valid(raw) {
		return "", "a string that is not valid UTF-8"
	}
	text := o.r.text()
	o.pending = false
	if bytes.IndexByte(raw, '\\') >= 0 && loneSurrogate(raw) {
		return "", "a string that is not valid Unicode"
	}
	return string(text), ""
}

// loneSurrogate reports whether a quoted string holds a \u escape that is
// half of a surrogate pair without its other half.
func loneSurrogate(raw []byte) bool {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		i++ // the escaped character
		if raw[i] != 'u' {
			continue
		}
		unit, _ := strconv.ParseUint(string(raw[i+1:i+5]), 16, 32)
		i += 4
		switch {
		case unit >= 0xDC00 && unit <= 0xDFFF:
			return true
		case unit >= 0xD800 && unit <= 0xDBFF:
			if i+6 >= len(raw) || raw[i+1] != '\\' || raw[i+2] != 'u' {
				return true
			}
			low, _ := strconv.ParseUint(string(raw[i+3:i+7]), 16, 32)
			if low < 0xDC00 || low > 0xDFFF {
				return true
			}
			i += 6
		}
	}
	return false
}

// ListRaw hands each element of a list to item as its JSON, which aliases the
// body. The list has the shapes that [Object.List] knows.
func (o *Object) ListRaw(item func([]byte)) {
	switch o.r.b[o.r.i] {
	case '[':
		for _, raw := range elements(o.Raw()) {
			item(raw)
		}
	case '{':
		inner := o.nested()
		for inner.Next() {
			if isItems(inner.Key) && inner.r.b[inner.r.i] == '[' {
				inner.ListRaw(item)
			}
		}
	default:
		if !o.Null() {
			o.Fail("a list", o.Kind())
		}
	}
}
