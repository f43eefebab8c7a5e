package jobfile

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"go.yaml.in/yaml/v3"

	"github.com/keywright/keywright/internal/spell"
)

// compiled is the schema: to validate with, and as JSON to look its titles up.
// A title says what is wanted, in the words of an error.
type compiled struct {
	*jsonschema.Schema
	raw map[string]any
}

var theSchema = sync.OnceValue(func() compiled {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		panic("jobfile: schema: " + err.Error())
	}
	raw, _ := doc.(map[string]any)
	id, _ := raw["$id"].(string)
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(jsonschema.SchemeURLLoader{}) // it refers to nothing else
	c.RegisterFormat(&jsonschema.Format{Name: "keywright-duration", Validate: func(v any) error {
		if s, ok := v.(string); ok {
			return new(Duration).UnmarshalText([]byte(s))
		}
		return nil
	}})
	c.AssertFormat()
	if err := c.AddResource(id, doc); err != nil {
		panic("jobfile: schema: " + err.Error())
	}
	return compiled{c.MustCompile(id), raw}
})

// at returns the part of the schema that a location names, and the name of the
// definition that it is in.
func (c compiled) at(location string) (part map[string]any, def string) {
	_, fragment, _ := strings.Cut(location, "#")
	if text, err := url.PathUnescape(fragment); err == nil {
		fragment = text
	}
	var v any = c.raw
	for i, token := range strings.Split(strings.TrimPrefix(fragment, "/"), "/") {
		if fragment == "" {
			break
		}
		token = strings.NewReplacer("~1", "/", "~0", "~").Replace(token)
		switch now := v.(type) {
		case map[string]any:
			v = now[token]
		case []any:
			var n int
			if _, err := fmt.Sscan(token, &n); err == nil && n < len(now) {
				v = now[n]
			}
		}
		if i == 1 {
			def = token
		}
	}
	part, _ = v.(map[string]any)
	return part, def
}

// wanted says what a part of the schema wants.
func (c compiled) wanted(location string) string {
	part, _ := c.at(location)
	title, _ := part["title"].(string)
	return title
}

// fields returns the names of the fields of an object of the schema.
func fields(part map[string]any) []string {
	properties, _ := part["properties"].(map[string]any)
	return slices.Sorted(maps.Keys(properties))
}

// elsewhere reports whether a definition that is an alternative to def, such
// as another kind of sink, has a field of that name.
func (c compiled) elsewhere(def, name string) bool {
	family, _, ok := strings.Cut(def, "-")
	if !ok || family != "job" && family != "sink" {
		return false
	}
	defs, _ := c.raw["$defs"].(map[string]any)
	for other, part := range defs {
		if object, ok := part.(map[string]any); ok && strings.HasPrefix(other, family+"-") && slices.Contains(fields(object), name) {
			return true
		}
	}
	return false
}

// validate notes what the schema does not allow.
func (d *document) validate() {
	s := theSchema()
	var failed *jsonschema.ValidationError
	if err := s.Validate(d.value); errors.As(err, &failed) {
		d.explain(s, failed)
	}
}

// explain notes what a validation has found, in our words. Where one of
// several schemas must fit, it says so and not why each of them does not.
func (d *document) explain(s compiled, e *jsonschema.ValidationError) {
	if len(d.problems) >= maxProblems {
		return
	}
	want := s.wanted(e.SchemaURL)
	at := e.InstanceLocation
	switch k := e.ErrorKind.(type) {
	case *kind.InvalidJsonValue: // noted when it was read
	case *kind.Not:
		d.addAt(want, at...)
	case *kind.Required:
		for _, name := range k.Missing {
			reason := "is missing"
			if meant := spell.Nearest(name, d.strangers(at)); meant != "" && plain(meant) {
				reason += "; is it what you called \"" + meant + "\"?"
			}
			d.addAt(reason, append(slices.Clone(at), name)...)
		}
	case *kind.AdditionalProperties:
		for _, name := range slices.Sorted(slices.Values(k.Properties)) {
			d.unknown(s, e.SchemaURL, append(slices.Clone(at), name))
		}
	case *kind.Enum:
		d.addAt(notOneOf(k), at...)
	case *kind.Type:
		d.addAt(wrongType(k, want), at...)
	case *kind.OneOf:
		d.addAt("want "+want, at...)
	default:
		for _, cause := range e.Causes {
			d.explain(s, cause)
		}
		if len(e.Causes) > 0 {
			return
		}
		if want == "" {
			want = "something else"
		}
		d.addAt("want "+want, at...)
	}
}

// strangers returns the fields of an object whose names the schema has nowhere.
func (d *document) strangers(at []string) []string {
	_, _, n := d.locate(at)
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	var names []string
	for i := 0; i+1 < len(n.Content); i += 2 {
		if name := n.Content[i].Value; !bytes.Contains(schema, []byte(strconv.Quote(name)+":")) {
			names = append(names, name)
		}
	}
	return names
}

// unknown notes a field that does not belong where it is.
func (d *document) unknown(s compiled, location string, at []string) {
	name := at[len(at)-1]
	part, def := s.at(location)
	reason := "unknown field"
	if s.elsewhere(def, name) {
		family, branch, _ := strings.Cut(def, "-")
		reason = map[string]string{"job": "does not go with strategy ", "sink": "does not go with type "}[family] + branch
	} else if meant := spell.Nearest(name, fields(part)); meant != "" {
		reason += `; did you mean "` + meant + `"?`
	}
	where, key, n := d.locate(at)
	if key != nil {
		n = key
	}
	d.add(n, where, reason)
}

// notOneOf is a word that is none of the few that are allowed.
func notOneOf(k *kind.Enum) string {
	var words []string
	for _, w := range k.Want {
		words = append(words, fmt.Sprint(w))
	}
	got, _ := k.Got.(string)
	reason := "want " + strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
	if plain(got) {
		reason = `is "` + got + `"; ` + reason
		if meant := spell.Nearest(got, words); meant != "" {
			reason += `; did you mean "` + meant + `"?`
		}
	}
	return reason
}

var typeNames = map[string]string{
	"object": "fields with values", "array": "a list", "string": "text", "integer": "a whole number", "number": "a number", "boolean": "true or false",
}

// wrongType is a value of another type than the one that is wanted.
func wrongType(k *kind.Type, want string) string {
	first := k.Want[0]
	if want == "" || first == "object" {
		want = typeNames[first]
	}
	reason := "want " + want
	switch {
	case k.Got == "null":
		return "is empty; " + reason
	case first == "string" && (k.Got == "number" || k.Got == "boolean"):
		return "is a " + k.Got + "; " + reason + ", in quotes"
	}
	return reason
}
