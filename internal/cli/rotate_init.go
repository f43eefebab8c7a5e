package cli

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/keywright/keywright/internal/durable"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/jobfile"
)

// question asks for one field of a job file.
type question struct {
	field     string // as the file calls it
	text      string
	byDefault string
	kind      answerKind
	optional  bool // the default holds without the field, which is left out then
	restart   bool // the answer may be restart
}

// answerKind is what an answer is written as.
type answerKind int

const (
	aText    answerKind = iota // a YAML string
	aPlain                     // a number, or true
	aNumbers                   // a list of numbers
	aWords                     // a list of strings
)

// choice is one of several things that a job can be made of, with the fields
// that it needs.
type choice struct {
	name, about string
	blind       bool // a place that cannot be read
	questions   []question
}

// strategies are how a key can be rotated.
var strategies = []choice{
	{name: strategyPaired, about: "two keys of ricloud in turn: the old token works until it is retired, whatever happens", questions: []question{
		{field: "keys", text: "Ids of the two keys, such as 7 8", kind: aNumbers},
	}},
	{name: strategyOverlap, about: "one key of ricloud: the old token works for six more hours", questions: []question{
		{field: "key", text: "Id of the key", kind: aPlain},
	}},
	{name: "acedata-swap", about: "a credential of Ace Data Cloud by another that is like it: the old one works until it is retired", questions: []question{
		{field: "credential", text: "Id of the credential, a UUID"},
	}},
	{name: strategyInPlace, about: "a credential of Ace Data Cloud in place: whoever has the old token fails until it has the new one", questions: []question{
		{field: "credential", text: "Id of the credential, a UUID"},
		{field: "accept_outage", text: "Readers fail for a while. Type true to accept that", kind: aPlain},
	}},
}

// Strategies that something is special about.
const (
	strategyPaired  = "ricloud-paired"
	strategyOverlap = "ricloud-overlap"
	strategyInPlace = "acedata-in-place"
)

// places are where a token can go. Those whose readers may have to be restarted
// have no default for the lag: nobody but the user knows.
var places = []choice{
	{name: "file", about: "a file with the token in it", questions: []question{
		{field: "path", text: "Path of the file"},
		{field: "lag", text: lagText, byDefault: "30s"},
	}},
	{name: "dotenv", about: "a variable in a dotenv file", questions: []question{
		{field: "path", text: "Path of the file"},
		{field: "variable", text: "Variable", byDefault: tokenVariable},
		{field: "lag", text: restartText, restart: true},
	}},
	{name: "ini", about: "a key in an INI file", questions: []question{
		{field: "path", text: "Path of the file"},
		{field: "section", text: "Section", byDefault: "api"},
		{field: "key", text: "Key", byDefault: "token"},
		{field: "lag", text: restartText, restart: true},
	}},
	{name: "json", about: "a string in a JSON file", questions: []question{
		{field: "path", text: "Path of the file"},
		{field: "pointer", text: "Pointer to the string, such as /env/TOKEN"},
		{field: "lag", text: restartText, restart: true},
	}},
	{name: "exec", about: "a command that gets the token on its standard input", blind: true, questions: []question{
		{field: "name", text: "Name of this place"},
		{field: "command", text: "Command and arguments", kind: aWords},
		{field: "lag", text: lagText, byDefault: "1m"},
	}},
	{name: "vault", about: "a secret in Vault or OpenBao", questions: []question{
		{field: "address", text: "Address, such as https://vault.example.com:8200"},
		{field: "path", text: "Path of the secret"},
		{field: "field", text: "Field", byDefault: "token"},
		{field: "token_file", text: "File with Vault's own token"},
		{field: "lag", text: lagText, byDefault: "5m", optional: true},
	}},
	{name: "kubernetes", about: "a Secret of the cluster that this runs in", questions: []question{
		{field: "namespace", text: "Namespace"},
		{field: "name", text: "Name of the Secret"},
		{field: "key", text: "Key in its data", byDefault: "token"},
		{field: "lag", text: restartText, byDefault: "90s", optional: true, restart: true},
	}},
	{name: "github", about: "a secret of GitHub Actions", blind: true, questions: []question{
		{field: "owner", text: "Owner of the repository"},
		{field: "repo", text: "Repository"},
		{field: "name", text: "Name of the secret", byDefault: tokenVariable},
		{field: "token_file", text: "File with a token of GitHub"},
		{field: "lag", text: lagText, byDefault: "6h", optional: true},
	}},
}

const (
	tokenVariable = "RICLOUD_TOKEN" // of a job for ricloud
	restart       = "restart"

	lagText     = "How long after a write do its readers have the new token, at the latest?"
	restartText = lagText + " Type " + restart + " if they read it when they start"
)

func (r *rotator) initCommand() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: "init", Short: "Write a job file by asking",
		Long: `Write a commented job file by asking what it says. It sends nothing, and holds no
token.`,
		Example: "keywright rotate init\nkeywright rotate init --file /etc/keywright.yaml",
	}
	c.Flags().BoolVar(&force, "force", false, "replace a file that is there")
	c.RunE = func(*cobra.Command, []string) error {
		path := r.file()
		if !r.a.interactive() {
			return &usageError{reason: "rotate init asks questions, and this is no terminal", next: "write the file by hand: keywright rotate schema"}
		}
		if _, err := os.Lstat(path); err == nil && !force {
			return usage("%s exists; use --force to replace it", path)
		}
		iv := &interview{a: r.a, path: path}
		text, err := iv.file()
		if err != nil {
			return err
		}
		if err := durable.Replace(r.a.ctx, durable.OS{}, path, []byte(text), durable.Options{}); err != nil {
			return err
		}
		r.a.note("%s is written", path)
		if missing := iv.missing(); missing != "" {
			r.a.note("%s is not there yet: put the token that is in use into it, such as with: %s", missing, iv.fetch(missing))
		}
		r.a.note("say what a rotation would do: %s", r.command("plan"))
		return nil
	}
	return c
}

// interview makes a job file of answers.
type interview struct {
	a         *app
	path      string
	draft     draft
	strategy  string
	tokenFile string // the first file that gets the token
}

// draft is a job file as far as it was asked for, in its parts.
type draft struct {
	own         string // how keywright itself reaches ricloud
	name        string
	strategy    string
	verify      string
	acknowledge string
	sinks       string
	count       int  // of the sinks
	readable    bool // one of them can be read
}

const fileHead = `# Rotation jobs of keywright. The format: keywright rotate schema
#
#   keywright rotate plan     say what a rotation would do
#   keywright rotate run      rotate, or go on with a rotation
#   keywright rotate status   say how far it is
version: 1

# Where it is kept how far a rotation is, and the new token until every place has
# it. Relative paths begin at this file. Keep the directory from run to run.
journal: .keywright
`

const (
	ownTokenHead = `
ricloud:
  # The token that keywright itself uses.`
	ownTokenDelivered = ` It belongs to a key that is rotated, and
  # is read where it is delivered.`
)

const (
	sinksHead     = `    # The places that the token is delivered to, the most harmless first.`
	sinksReadable = ` One of
    # them must hold the token that is in use now.`
)

// text returns the file. What was not asked for yet is made up, so that nothing
// but answers can be wrong with it.
func (d draft) text() string {
	text := fileHead + d.own + "\njobs:\n  - name: " + cmp.Or(d.name, "sample") + "\n" +
		cmp.Or(d.strategy, "    strategy: ricloud-overlap\n    key: 1\n") + d.verify + d.acknowledge + sinksHead
	if d.readable {
		text += sinksReadable
	}
	return text + "\n    sinks:\n" + cmp.Or(d.sinks, "      - type: file\n        path: sample\n")
}

// missing returns the first file for the token if it is not there.
func (iv *interview) missing() string {
	path := iv.tokenFile
	if path != "" && !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(iv.path), path)
	}
	if _, err := os.Lstat(path); path == "" || err == nil {
		return ""
	}
	return path
}

// fetch returns a command that saves the token in use.
func (iv *interview) fetch(path string) string {
	if strings.HasPrefix(iv.strategy, "ricloud-") {
		return "keywright ricloud key current --token-file " + quoted(path)
	}
	return "keywright acedata credential get ID --token-file " + quoted(path)
}

// problems returns what is wrong with a draft at a field, or anywhere.
func (iv *interview) problems(d draft, field string) ([]jobfile.Problem, error) {
	_, err := jobfile.Parse(iv.path, []byte(d.text()))
	var bad *jobfile.Error
	if !errors.As(err, &bad) {
		return nil, err
	}
	return slices.DeleteFunc(bad.Problems, func(p jobfile.Problem) bool {
		rest, ok := strings.CutPrefix(p.Where, field)
		return !ok || field != "" && rest != "" && rest[0] != '.' && rest[0] != '['
	}), nil
}

// say says what belongs to a question: --quiet does not keep it back.
func (iv *interview) say(format string, args ...any) {
	fmt.Fprintln(iv.a.err, wrapped(printable(fmt.Sprintf(format, args...)), iv.a.width()))
}

// file asks until the answers make a file that can be used.
func (iv *interview) file() (string, error) {
	name := question{text: "Name of the job, such as the service that uses the key", byDefault: "billing"}
	_, err := iv.ask(name, "jobs[0].name", func(d *draft, answer string) { d.name = aText.text(answer) })
	if err != nil {
		return "", err
	}
	if err := iv.askStrategy(); err != nil {
		return "", err
	}
	if err := iv.askPlaces(); err != nil {
		return "", err
	}
	if strings.HasPrefix(iv.strategy, "ricloud-") {
		if err := iv.askOwnToken(); err != nil {
			return "", err
		}
	}
	text := iv.draft.text()
	_, err = jobfile.Parse(iv.path, []byte(text))
	return text, err
}

// askStrategy asks how the key is rotated, and what tells whether a token works.
func (iv *interview) askStrategy() error {
	for i, s := range strategies {
		iv.say("  %d  %-17s %s", i+1, s.name, s.about)
	}
	s, err := iv.choose("How is the key rotated?", strategies, "1")
	if err != nil {
		return err
	}
	iv.strategy = s.name
	iv.draft.strategy = "    # " + sentence(s.about) + "\n    strategy: " + s.name + "\n"
	for _, q := range s.questions {
		_, err := iv.ask(q, "jobs[0]."+q.field, func(d *draft, answer string) {
			d.strategy += "    " + q.field + ": " + q.kind.text(answer) + "\n"
		})
		if err != nil {
			return err
		}
	}
	if !strings.HasPrefix(s.name, "acedata-") {
		return nil
	}
	url := question{text: "URL that answers 2xx to a token that works, and 401 to one that does not; empty if there is none", optional: true}
	_, err = iv.ask(url, "jobs[0].verify", func(d *draft, answer string) {
		d.verify = "    # Asked with the new token before anything else has it.\n    verify:\n      url: " + aText.text(answer) + "\n"
	})
	return err
}

// sentence makes a sentence of a phrase.
func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." }

// askPlaces asks for places until there are no more, each again if the file
// would not be good with it.
func (iv *interview) askPlaces() error {
	for i, p := range places {
		iv.say("  %d  %-11s %s", i+1, p.name, p.about)
	}
	for {
		text, byDefault := "Where is the token used?", "1"
		if iv.draft.count > 0 {
			text, byDefault = "Where else? Type none if nowhere", "none"
		}
		place, err := iv.choose(text, places, byDefault)
		if err != nil || place == nil {
			return err
		}
		before := iv.draft
		reasons, err := iv.askPlace(place)
		if err != nil {
			return err
		}
		if len(reasons) > 0 {
			iv.draft = before
			iv.say("that is no good:")
			for _, reason := range reasons {
				iv.say("  %s", reason)
			}
		}
	}
}

// askPlace asks what a place needs, and returns what is wrong with it.
func (iv *interview) askPlace(place *choice) (reasons []string, err error) {
	at := "jobs[0].sinks[" + strconv.Itoa(iv.draft.count) + "]."
	iv.draft.count++
	iv.draft.readable = iv.draft.readable || !place.blind
	iv.draft.sinks += "      # " + sentence(place.about) + "\n      - type: " + place.name + "\n"
	answers := make(map[string]string)
	for _, q := range place.questions {
		if q.byDefault == tokenVariable && strings.HasPrefix(iv.strategy, "acedata-") {
			q.byDefault = "ACEDATACLOUD_API_TOKEN"
		}
		answers[q.field], err = iv.ask(q, at+q.field, func(d *draft, answer string) {
			switch {
			case !q.restart || answer != restart:
				d.sinks += "        " + q.field + ": " + q.kind.text(answer) + "\n"
			case place.name == "kubernetes":
				d.sinks += "        until_restart: true\n"
			}
		})
		if err != nil {
			return nil, err
		}
	}
	lag := answers["lag"]
	if lag == restart && iv.draft.acknowledge == "" && iv.strategy != strategyInPlace {
		if err := iv.askAcknowledge(); err != nil {
			return nil, err
		}
	}
	problems, err := iv.problems(iv.draft, "")
	if err != nil {
		return nil, err
	}
	for _, p := range problems {
		reasons = append(reasons, p.Where+": "+p.Reason)
	}
	var needs jobfile.Duration
	has := rotation.RicloudOverlap{}.Traits().Overlap
	if iv.strategy == strategyOverlap && needs.UnmarshalText([]byte(lag)) == nil && time.Duration(needs) >= has {
		reasons = append(reasons, at+"lag: with ricloud-overlap the old token works for six hours only, and readers must have the new one sooner")
	}
	if place.name == "file" && len(reasons) == 0 {
		iv.tokenFile = cmp.Or(iv.tokenFile, answers["path"])
	}
	return reasons, nil
}

// askAcknowledge asks what tells that readers have restarted.
func (iv *interview) askAcknowledge() error {
	q := question{text: "Command that exits 0 when all readers have the token it gets on standard input, 75 while they do not", kind: aWords}
	_, err := iv.ask(q, "jobs[0].acknowledge", func(d *draft, answer string) {
		d.acknowledge = "    # Says whether all readers have the new token; the old one is not retired before.\n" +
			"    acknowledge:\n      command: " + q.kind.text(answer) + "\n"
	})
	return err
}

// askOwnToken asks which token keywright itself uses.
func (iv *interview) askOwnToken() error {
	// Which of two keys is in use can only be told by a token.
	blind := iv.strategy == strategyPaired && !iv.draft.readable
	if blind {
		iv.say("none of these places can be read, so that the token that keywright itself uses must be that of one of the two keys: the one that they hold")
	}
	q := question{text: "File with the token that keywright itself uses; none for RICLOUD_TOKEN or ~/.ricloud.ini", byDefault: cmp.Or(iv.tokenFile, "none")}
	own, err := iv.ask(q, "ricloud.token_file", func(d *draft, answer string) {
		if answer == "none" {
			return
		}
		d.own = ownTokenHead
		if answer == iv.tokenFile {
			d.own += ownTokenDelivered
		}
		d.own += "\n  token_file: " + aText.text(answer) + "\n"
	})
	if err == nil && own == "none" && !blind {
		iv.say("the token in RICLOUD_TOKEN or ~/.ricloud.ini must be that of another key: these are rotated")
	}
	return err
}

// choose asks for one of several, by number or name; "none" is nil.
func (iv *interview) choose(text string, from []choice, byDefault string) (*choice, error) {
	for {
		answer, err := iv.a.ask(text, byDefault)
		if err != nil {
			return nil, err
		}
		if answer == "none" && byDefault == "none" {
			return nil, nil
		}
		for i := range from {
			if answer == from[i].name || answer == strconv.Itoa(i+1) {
				return &from[i], nil
			}
		}
		iv.say("want a number from 1 to %d", len(from))
	}
}

// ask asks a question until nothing is wrong at a field of the file with the
// answer in it.
func (iv *interview) ask(q question, field string, write func(*draft, string)) (string, error) {
	for {
		answer, err := iv.a.ask(q.text, q.byDefault)
		switch {
		case err != nil:
			return "", err
		case q.optional && answer == q.byDefault:
			return answer, nil
		case answer == "":
			iv.say("an answer is needed")
			continue
		case q.kind == aWords && strings.ContainsAny(answer, "'\"\\"):
			iv.say("quotes are not understood here: give the command and plain words, and edit the file for more")
			continue
		}
		d := iv.draft
		write(&d, answer)
		problems, err := iv.problems(d, field)
		if err != nil {
			return "", err
		}
		if len(problems) == 0 {
			iv.draft = d
			return answer, nil
		}
		iv.say("that is no good: %s", problems[0].Reason)
	}
}

// number is what is a number or true, and no string, in YAML.
var number = regexp.MustCompile(`^([0-9]+|true)$`)

// text returns an answer as YAML, on one line.
func (k answerKind) text(answer string) string {
	word := func(s string) *yaml.Node {
		n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
		if (k == aPlain || k == aNumbers) && number.MatchString(s) {
			n.Tag = ""
		}
		return n
	}
	n := word(answer)
	if k == aNumbers || k == aWords {
		n = &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, w := range strings.FieldsFunc(answer, func(r rune) bool { return unicode.IsSpace(r) || k == aNumbers && r == ',' }) {
			n.Content = append(n.Content, word(w))
		}
	}
	b, err := yaml.Marshal(n)
	if err != nil { // it is not UTF-8
		return `""`
	}
	return strings.TrimSuffix(string(b), "\n")
}
