package cli

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/keywright/keywright"
)

// record is a resource as it is printed: its fields, in order.
type record []field

// field is one field of a record. Its value is nil, a bool, a string, a stamp, a
// json.Number, a json.RawMessage, a record, or a []any of these.
type field struct {
	name  string
	value any
}

// stamp is a time in RFC 3339, in UTC.
type stamp string

// get returns the value of a field, and nil without one. "service.alias" is the
// field alias of the record in the field service.
func (r record) get(name string) any {
	for _, f := range r {
		if f.name == name {
			return f.value
		}
	}
	if outer, inner, ok := strings.Cut(name, "."); ok {
		nested, _ := r.get(outer).(record)
		return nested.get(inner)
	}
	return nil
}

// MarshalJSON writes the fields in their order.
func (r record) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range r {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := encode(f.name)
		if err != nil {
			return nil, err
		}
		value, err := encode(f.value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// encode is json.Marshal without escaping for HTML.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimRight(b.Bytes(), "\n"), err
}

// hidden stands for a secret that is not to be shown. It is no token: the SDK
// refuses it wherever it takes one.
const hidden = "[REDACTED]"

// recorder makes records of the SDK's values.
type recorder struct {
	reveal bool // show secrets
}

// record returns what is printed of a struct: every field, in order, so that
// the shape does not depend on the content. Times are RFC 3339 in UTC.
func (rr recorder) record(v any) record {
	r, _ := rr.value(reflect.ValueOf(v)).(record)
	return r
}

// unlisted gives the names of fields that the SDK reads from the wire by hand.
var unlisted = map[string]string{
	"Masked":           "masked",
	"SignedURLsExpiry": "signed_urls_expiry",
	"Data":             "data",
	"Results":          "results",
	"Extra":            "extra",
}

// printedAs returns the name that a field of a struct is printed with, empty for
// one that is not, and whether the fields inside of it take its place.
func printedAs(f reflect.StructField) (name string, embedded bool) {
	if !f.IsExported() {
		return "", false
	}
	name, _, _ = strings.Cut(f.Tag.Get("json"), ",")
	if name == "-" {
		name = unlisted[f.Name]
	}
	return name, f.Anonymous && name == ""
}

func (rr recorder) fields(v reflect.Value) record {
	r := record{}
	for i := range v.NumField() {
		switch name, embedded := printedAs(v.Type().Field(i)); {
		case embedded:
			inner, _ := rr.value(v.Field(i)).(record)
			r = append(r, inner...)
		case name != "":
			r = append(r, field{name, rr.value(v.Field(i))})
		}
	}
	return r
}

func (rr recorder) value(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Invalid:
		return nil
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil
		}
		return rr.value(v.Elem())
	case reflect.Bool:
		return v.Bool()
	case reflect.String:
		return v.String()
	case reflect.Slice:
		out := make([]any, 0, v.Len())
		for i := range v.Len() {
			out = append(out, rr.value(v.Index(i)))
		}
		return out
	case reflect.Map:
		return rr.members(v)
	case reflect.Struct:
		switch x := v.Interface().(type) {
		case keywright.Secret:
			return rr.secret(x)
		case time.Time:
			if x.IsZero() {
				return nil
			}
			return stamp(x.UTC().Format(time.RFC3339Nano))
		}
		return rr.fields(v)
	}
	if d, ok := v.Interface().(time.Duration); ok { // in seconds
		if d < 0 { // rotation.UntilRetired: no limit
			return nil
		}
		return json.Number(jsonText(d.Seconds()))
	}
	return json.Number(jsonText(v.Interface()))
}

// members returns what is printed of a map: its members by name.
func (rr recorder) members(v reflect.Value) record {
	r := make(record, 0, v.Len())
	for _, k := range v.MapKeys() {
		value := rr.value(v.MapIndex(k))
		if s, ok := v.MapIndex(k).Interface().(keywright.Secret); ok && rr.reveal && json.Valid([]byte(s.Reveal())) {
			value = json.RawMessage(s.Reveal()) // a member that the SDK does not know
		}
		r = append(r, field{k.String(), value})
	}
	slices.SortFunc(r, func(a, b field) int { return strings.Compare(a.name, b.name) })
	return r
}

// secret returns what is printed of a secret: null if there is none, and else a
// mask, its text, or the JSON document that it is.
func (rr recorder) secret(s keywright.Secret) any {
	switch {
	case s.IsZero():
		return nil
	case !rr.reveal:
		return hidden
	}
	text := s.Reveal()
	if (text[0] == '{' || text[0] == '[') && json.Valid([]byte(text)) {
		return json.RawMessage(text)
	}
	return text
}

func jsonText(v any) string {
	b, _ := json.Marshal(v) // a number
	return string(b)
}
