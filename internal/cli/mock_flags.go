package cli

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/keywright/keywright/internal/spell"
	"github.com/keywright/keywright/keywrighttest"
)

// variant defines a flag that makes a fake behave in another way.
func (m *mock) variant(f *pflag.FlagSet, name, help string, o keywrighttest.Option) {
	f.BoolFunc(name, help, func(s string) error {
		on, err := parseBool(s)
		if on {
			m.options = append(m.options, o)
		}
		return err
	})
}

// valued defines a flag for an option with a value.
func valued[T any](m *mock, f *pflag.FlagSet, name, kind, help string, parse func(string) (T, error), option func(T) keywrighttest.Option) {
	f.Var(&value{kind: kind, set: func(s string) error {
		v, err := parse(s)
		if err == nil {
			m.options = append(m.options, option(v))
		}
		return err
	}}, name, help)
}

func parseWord(s string) (string, error) { return s, notEmpty(s) }

func parseFirstToken(s string) (string, error) {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '.' || r == '_' || r == '-')
	}) {
		return "", usage("want letters, digits, dots, dashes and underscores")
	}
	return s, nil
}

func parseCount(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, usage("want a number from 1")
	}
	return n, nil
}

// Operations of the fakes.
var (
	ricloudOperations = []string{
		"key.list", "key.create", "key.retrieve", "key.current", "key.update", "key.rotate",
		"storage_config.list", "storage_config.create", "storage_config.retrieve", "storage_config.update", "storage_config.delete", "storage_config.test",
		"webhook_config.list", "webhook_config.create", "webhook_config.retrieve", "webhook_config.update", "webhook_config.delete", "webhook_config.test",
		"organisation.retrieve", "organisation.update", "task.list", "task.retrieve", "event.list", "event.retrieve",
	}
	aceDataOperations = []string{
		"credential.list", "credential.create", "credential.retrieve", "credential.update", "credential.rotate", "credential.delete",
		"application.list", "application.create", "application.retrieve",
		"platform_token.list", "platform_token.create", "platform_token.retrieve", "platform_token.delete", "platform_token.me", "probe",
	}
)

// mockHelp is what is said about both fakes.
func mockHelp(example string, operations []string) string {
	list := operations[0]
	width := len(list)
	for _, op := range operations[1:] {
		if width += len(op) + 2; width > 61 {
			list, width = list+",\n               "+op, len(op)
		} else {
			list += ", " + op
		}
	}
	return fmt.Sprintf(`

It listens on this machine only, and prints lines for a file of environment
variables: its URL and its token, which is no secret. With --verbose it logs
every request. Interrupt it to end it: it forgets everything then.

A FAULT is OPERATION:MOMENT:ACTION, and happens to the next request of the
operation; OPERATION:MOMENT:ACTION:N to the next N; with "always" for N, to all.
Faults of one operation happen in the order in which they are given, such as
--fault %s:before:429:2.

    OPERATION  %s,
               or any
    MOMENT     before  nothing is changed
               after   the change has taken effect
               late    the change takes effect a second after the fault;
                       late=5s: five seconds after it
    ACTION     drop    close the connection without an answer
               reset   the same, with a TCP reset
               stall   send nothing until the client gives up
               cut     send half of the answer, and close the connection
               drip    send a byte of the answer a second
               slow    send the answer after a second; slow=5s: after five
               twice   do it twice, as for a proxy that sends it again
               429     answer this status; 429=3s: with Retry-After: 3`, example, list)
}

// parseFault reads a fault as the help describes it.
func parseFault(s string, operations []string) (keywrighttest.Fault, error) {
	var f keywrighttest.Fault
	parts := strings.Split(s, ":")
	if len(parts) < 3 || len(parts) > 4 {
		return f, usage("want OPERATION:MOMENT:ACTION[:N], such as key.rotate:after:drop")
	}
	if f.Op = parts[0]; f.Op == "any" {
		f.Op = ""
	} else if !slices.Contains(operations, f.Op) {
		if near := spell.Nearest(f.Op, operations); near != "" {
			return f, usage("unknown operation; did you mean %q?", near)
		}
		return f, usage("unknown operation; the help lists them")
	}
	moment, wait, err := wordAndTime(parts[1], "late")
	if err != nil {
		return f, err
	}
	switch f.Delay = wait; moment {
	case "before":
	case "after":
		f.When = keywrighttest.AfterApply
	case "late":
		f.When = keywrighttest.LateApply
	default:
		return f, usage("want before, after or late, got %s", shown(moment))
	}
	if err := setAction(&f, parts[2]); err != nil {
		return f, err
	}
	if len(parts) < 4 {
		return f, nil
	}
	if f.Times = -1; parts[3] != "always" {
		f.Times, err = parseCount(parts[3])
	}
	return f, err
}

// setAction sets what goes wrong.
func setAction(f *keywrighttest.Fault, s string) error {
	word, wait, err := wordAndTime(s, "slow")
	if status, bad := strconv.Atoi(word); bad == nil {
		f.Do, f.Status, f.Body = keywrighttest.Answer, status, "{}"
		switch {
		case err != nil:
			return err
		case status < 200 || status > 599:
			return usage("want a status from 200 to 599")
		case wait > 0:
			f.Header = http.Header{"Retry-After": {strconv.Itoa(int(wait.Seconds()))}}
		}
		return nil
	}
	actions := map[string]keywrighttest.Action{
		"drop": keywrighttest.Drop, "reset": keywrighttest.Reset, "stall": keywrighttest.Stall, "cut": keywrighttest.Cut,
		"drip": keywrighttest.Drip, "slow": keywrighttest.Slow, "twice": keywrighttest.Twice,
	}
	action, ok := actions[word]
	switch f.Do = action; {
	case err != nil:
		return err
	case !ok:
		return usage("want drop, reset, stall, cut, drip, slow, twice or a status, got %s", shown(word))
	case f.When == keywrighttest.LateApply && (action == keywrighttest.Slow || action == keywrighttest.Twice):
		return usage("late and %s exclude each other", word)
	case action == keywrighttest.Slow:
		f.Delay = wait
	}
	return nil
}

// wordAndTime splits "word=5s". A word that wants a time and has none gets a
// second; a number may have one.
func wordAndTime(s, wants string) (string, time.Duration, error) {
	word, text, given := strings.Cut(s, "=")
	if !given {
		if word == wants {
			return word, time.Second, nil
		}
		return word, 0, nil
	}
	if _, err := strconv.Atoi(word); err != nil && word != wants {
		return word, 0, usage("%s takes no time", shown(word))
	}
	d, err := parseDuration(text)
	return word, d, err
}
