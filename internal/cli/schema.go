package cli

import (
	"encoding/json"
	"reflect"
	"time"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/rotation"
)

func (a *app) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON schema of what commands print with --output json",
		Long: `Print a JSON schema (draft 2020-12) of what commands print with --output json,
and with --output yaml: an entry of $defs for each kind of record. Lists are
arrays of these. Later versions may add fields.`,
		Example: "keywright schema > keywright-output.schema.json",
		RunE: func(*cobra.Command, []string) error {
			b, err := json.MarshalIndent(outputSchema(), "", "  ")
			if err != nil {
				return err
			}
			return a.printText(string(b) + "\n")
		},
	}
}

// printed are the kinds of records that commands print.
var printed = []struct {
	name   string
	by     string // commands
	sample any    // what recorder makes the record of
}{
	{"key", "ricloud key", keywright.Key{}},
	{"storage_config", "ricloud storage-config", keywright.StorageConfig{}},
	{"webhook_config", "ricloud webhook-config", keywright.WebhookConfig{}},
	{"organisation", "ricloud organisation", keywright.Organisation{}},
	{"task", "ricloud task, ricloud storage-config test, ricloud webhook-config test", keywright.Task{}},
	{"event", "ricloud event", keywright.Event{}},
	{"credential", "acedata credential", keywright.Credential{}},
	{"application", "acedata application", keywright.Application{}},
	{"platform_token", "acedata platform-token", keywright.PlatformToken{}},
	{"user", "acedata platform-token me", keywright.User{}},
	{"plan", "rotate plan", rotation.Plan{}},
	{"result", "rotate run, rotate resume, rotate rollback", rotation.Result{}},
	{"fleet_result", "rotate run with several jobs", fleetResult{}},
	{"status", "rotate status", rotation.Status{}},
	{"setting", "config view", settingShape{}},
	{"saved", "config init", savedShape{}},
	{"check", "doctor", checkShape{}},
	{"mock", "mock", mocked{}},
	{"version", "version", version{}},
}

// Shapes of records that are put together by hand.
type (
	fleetResult struct {
		rotation.Result
		Problem *string `json:"problem"`
	}
	settingShape struct {
		Setting   string           `json:"setting"`
		Value     keywright.Secret `json:"value"`
		Origin    *string          `json:"origin"`
		Looked    []string         `json:"looked"`
		Overrides []string         `json:"overrides"`
		Problem   *string          `json:"problem"`
	}
	savedShape struct {
		File  string   `json:"file"`
		Saved []string `json:"saved"`
		URL   string   `json:"url"`
		Key   *int64   `json:"key"`
		State *string  `json:"state"`
	}
	checkShape struct {
		Check  string  `json:"check"`
		Result string  `json:"result"`
		Found  string  `json:"found"`
		Mend   *string `json:"mend"`
	}
)

// outputSchema returns the schema of everything that is printed as JSON.
func outputSchema() record {
	s := make(schemas)
	for _, p := range printed {
		s[reflect.TypeOf(p.sample)] = p.name
	}
	defs, kinds := record{}, []any{}
	for _, p := range printed {
		def := record{{"description", "Printed by " + p.by + "."}}
		defs = append(defs, field{p.name, append(def, s.object(reflect.TypeOf(p.sample))...)})
		kinds = append(kinds, refTo(p.name))
	}
	defs = append(defs, field{"secret", record{
		{"description", `null if there is none or the provider withholds it; else "` + hidden + `", and with --reveal its text, or the JSON document that it is.`},
		{"type", []any{"string", "object", "array", "null"}},
	}})
	return record{
		{"$schema", "https://json-schema.org/draft/2020-12/schema"},
		{"$id", "https://raw.githubusercontent.com/keywright/keywright/main/docs/cli.schema.json"},
		{"title", "Output of keywright"},
		{"description", "What commands of keywright print with --output json: a record, or an array of records. Every field is always there. Later versions may add fields."},
		{"anyOf", []any{
			record{{"$ref", "#/$defs/record"}},
			record{{"type", "array"}, {"items", record{{"$ref", "#/$defs/record"}}}},
		}},
		{"$defs", append(record{{"record", record{{"anyOf", kinds}}}}, defs...)},
	}
}

// schemas makes schemas of what recorder makes of values of a type. It holds
// the types that have an entry of their own, by its name.
type schemas map[reflect.Type]string

func refTo(name string) record { return record{{"$ref", "#/$defs/" + name}} }

func typed(names ...any) record {
	if len(names) == 1 {
		return record{{"type", names[0]}}
	}
	return record{{"type", names}}
}

// of returns the schema of a value.
func (s schemas) of(t reflect.Type) record {
	switch t {
	case reflect.TypeFor[keywright.Secret]():
		return refTo("secret")
	case reflect.TypeFor[time.Time](): // zero is null
		return record{{"type", []any{"string", "null"}}, {"format", "date-time"}}
	case reflect.TypeFor[time.Duration](): // endless is null
		return record{{"description", "Seconds."}, {"type", []any{"number", "null"}}}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return orNone(s.of(t.Elem()))
	case reflect.Bool:
		return typed("boolean")
	case reflect.String:
		return typed("string")
	case reflect.Float64:
		return typed("number")
	case reflect.Slice:
		return append(typed("array"), field{"items", s.of(t.Elem())})
	case reflect.Map:
		return append(typed("object"), field{"additionalProperties", s.of(t.Elem())})
	case reflect.Interface:
		return record{} // anything
	case reflect.Struct:
		if name := s[t]; name != "" {
			return refTo(name)
		}
		return s.object(t)
	}
	return typed("integer")
}

// orNone returns a schema that allows null too.
func orNone(r record) record {
	for i, f := range r {
		if f.name != "type" {
			continue
		}
		if _, several := f.value.([]any); !several {
			r[i].value = []any{f.value, "null"}
		}
		return r // what has several types can be null already
	}
	return record{{"anyOf", []any{r, typed("null")}}}
}

// object returns the schema of a struct, whose fields are always there.
func (s schemas) object(t reflect.Type) record {
	properties, required := record{}, []any{}
	for _, f := range s.fields(t) {
		properties, required = append(properties, f), append(required, f.name)
	}
	return record{{"type", "object"}, {"required", required}, {"properties", properties}}
}

// fields returns the schemas of a struct's fields, by the names that recorder
// gives them.
func (s schemas) fields(t reflect.Type) record {
	out := record{}
	for i := range t.NumField() {
		f := t.Field(i)
		switch name, embedded := printedAs(f); {
		case embedded:
			out = append(out, s.fields(f.Type)...)
		case name != "":
			out = append(out, field{name, s.of(f.Type)})
		}
	}
	return out
}
