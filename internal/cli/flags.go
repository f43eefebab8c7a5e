package cli

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/keywright/keywright"
)

// value is a flag whose text is parsed by a function.
type value struct {
	kind  string   // shown in the help
	text  string   // what was given, or the default
	words []string // that a shell offers
	set   func(string) error
}

func (v *value) String() string { return v.text }

func (v *value) Type() string { return v.kind }

// Set is called by pflag with what was given.
func (v *value) Set(s string) error {
	if err := v.set(s); err != nil {
		return err
	}
	v.text = s
	return nil
}

// choiceVar defines a flag that takes one of some words.
func choiceVar[T ~string](f *pflag.FlagSet, dst *T, name, short, help string, words ...T) {
	f.VarP(&value{kind: "word", text: string(*dst), words: texts(words), set: func(s string) error {
		if err := oneOf(words, s); err != nil {
			return err
		}
		*dst = T(s)
		return nil
	}}, name, short, help)
}

// oneOf refuses what is not one of some words.
func oneOf[T ~string](words []T, s string) error {
	if !slices.Contains(words, T(s)) {
		return usage("want %s, got %s", alternatives(words), shown(s))
	}
	return nil
}

// alternatives joins words: "a, b or c".
func alternatives[T ~string](words []T) string {
	var b strings.Builder
	for i, w := range words {
		switch {
		case i > 0 && i == len(words)-1:
			b.WriteString(" or ")
		case i > 0:
			b.WriteString(", ")
		}
		b.WriteString(string(w))
	}
	return b.String()
}

// durationVar defines a flag that takes a duration.
func durationVar(f *pflag.FlagSet, dst *time.Duration, name, help string) {
	text := ""
	if *dst != 0 {
		text = dst.String()
	}
	f.Var(&value{kind: "duration", text: text, set: func(s string) error {
		d, err := parseDuration(s)
		*dst = d
		return err
	}}, name, help)
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, usage("want a duration such as 5s")
	}
	if d < 0 {
		return 0, usage("must not be negative")
	}
	return d, nil
}

// textVar defines a flag that takes any text but nothing at all.
func textVar[T ~string](f *pflag.FlagSet, dst *T, name, help string) {
	f.Var(&value{kind: "text", set: func(s string) error {
		*dst = T(s)
		return notEmpty(s)
	}}, name, help)
}

// textsVar defines a flag that can be given several times.
func textsVar[T ~string](f *pflag.FlagSet, dst *[]T, name, help string) {
	f.Var(&value{kind: "text", set: func(s string) error {
		*dst = append(*dst, T(s))
		return notEmpty(s)
	}}, name, help+"; may be given several times")
}

// choicesVar defines a flag that takes one of some words, and can be given
// several times.
func choicesVar[T ~string](f *pflag.FlagSet, dst *[]T, name, help string, words ...T) {
	f.Var(&value{kind: "word", words: texts(words), set: func(s string) error {
		if err := oneOf(words, s); err != nil {
			return err
		}
		*dst = append(*dst, T(s))
		return nil
	}}, name, help+"; may be given several times")
}

func notEmpty(s string) error {
	if strings.TrimSpace(s) == "" {
		return usage("must not be empty")
	}
	return nil
}

// numberID is the id of something at ricloud that is a number.
type numberID interface {
	keywright.KeyID | keywright.StorageConfigID | keywright.WebhookConfigID | keywright.OrganisationID
}

// idVar defines a flag that takes the number of a resource.
func idVar[T numberID](f *pflag.FlagSet, dst *T, name, help string) {
	f.Var(&value{kind: "id", set: func(s string) (err error) {
		*dst, err = parseID[T](s)
		return err
	}}, name, help)
}

func parseID[T numberID](s string) (T, error) {
	id, err := keywright.ParseID[T](s)
	if wrong := (*keywright.ParamError)(nil); errors.As(err, &wrong) {
		return 0, usage("%s", wrong.Reason)
	}
	return id, err
}

// argID is parseID for an argument.
func argID[T numberID](s string) (T, error) {
	id, err := parseID[T](s)
	if err != nil {
		err = usage("ID: %v", err)
	}
	return id, err
}

// params are the flags of a command that set parameters with three states: not
// given, given, and null through --null.
type params struct {
	flags *pflag.FlagSet
	null  map[string]func() // by flag: sends null
	given []string          // fields named by --null
}

// newParams returns the parameters of a command.
func newParams(c *cobra.Command) *params {
	return &params{flags: c.Flags(), null: make(map[string]func())}
}

// param defines a flag for a parameter. The flag can be named by --null if
// nullable.
func param[T any](p *params, dst *keywright.Opt[T], name, kind, help string, nullable bool, parse func(string) (T, error)) {
	p.flags.Var(&value{kind: kind, set: func(s string) error {
		v, err := parse(s)
		if err == nil {
			*dst = keywright.Set(v)
		}
		return err
	}}, name, help)
	if nullable {
		p.null[name] = func() { *dst = keywright.Null[T]() }
	}
}

// listParam defines a flag for a parameter that is a list of texts. An empty
// text stands for the empty list, where null does too.
func listParam(p *params, dst *keywright.Opt[[]string], name, help string, nullable bool) {
	help += "; may be given several times"
	if nullable {
		help += `, "" for an empty list`
	}
	param(p, dst, name, "text", help, nullable, func(s string) ([]string, error) {
		if !nullable {
			if err := notEmpty(s); err != nil {
				return nil, err
			}
		}
		list, _ := dst.Get()
		if s != "" {
			list = append(list, s)
		}
		if list == nil {
			list = []string{}
		}
		return list, nil
	})
}

// defineNull defines --null, once all parameters are defined.
func (p *params) defineNull(help string) {
	p.flags.Var(&value{kind: "field", words: p.nullable(), set: func(s string) error {
		for _, name := range strings.Split(s, ",") {
			if err := oneOf(p.nullable(), name); err != nil {
				return err
			}
			p.given = append(p.given, name)
		}
		return nil
	}}, "null", help+": "+alternatives(p.nullable()))
}

func (p *params) nullable() []string {
	var names []string
	for name := range p.null {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// apply settles what --null asked for.
func (p *params) apply() error {
	for _, name := range p.given {
		if p.flags.Changed(name) {
			return usage("--%s and --null %s exclude each other", name, name)
		}
		p.null[name]()
	}
	return nil
}

// Parsers of parameters.

func parseText(s string) (string, error) { return s, nil }

func parseBool(s string) (bool, error) {
	switch s {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, usage("want true or false")
}

func parseAmount(s string) (float64, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0, usage("want a number")
	}
	return v, nil
}

func parseTime(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, usage("want a time such as 2027-01-31T12:00:00Z, or a date")
}

func parseObject(s string) (map[string]any, error) {
	var v map[string]any
	if err := json.Unmarshal([]byte(s), &v); err != nil || v == nil {
		return nil, usage("want a JSON object")
	}
	return v, nil
}

func parsePublish(s string) (keywright.KeyConfig, error) {
	on, err := parseBool(s)
	return keywright.KeyConfig{PublishSourceFiles: on}, err
}
