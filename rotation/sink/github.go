package sink

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/nacl/box"

	"github.com/keywright/keywright"
)

// GitHubConfig says which secret of GitHub Actions a token goes to.
type GitHubConfig struct {
	// Address is the API's; "https://api.github.com" by default, and
	// "https://github.example/api/v3" for GitHub Enterprise Server.
	Address string
	// Owner is the user or organisation that has the repository.
	Owner string
	// Repo is the repository's name, without the owner.
	Repo string
	// Environment is the deployment environment that the secret belongs to;
	// empty for a secret of the repository.
	Environment string
	// Name is the secret's, "BILLING_TOKEN".
	Name string
	// Token provides the token of a GitHub App or a user. It is asked for each
	// request, so that an installation token may expire.
	Token keywright.TokenSource
	// HTTPClient is used in place of the sink's own; it is copied, and the
	// copy follows no redirects.
	HTTPClient *http.Client
	// Lag is how long jobs that are running may use the old value; zero is six
	// hours, the longest that a job on a runner of GitHub's takes. A job on a
	// runner of your own may take longer.
	Lag time.Duration
}

const (
	githubOp      = "sink.GitHubActionsSecret"
	githubAddress = "https://api.github.com"
	githubVersion = "2022-11-28"
	githubJob     = 6 * time.Hour
)

// GitHubActionsSecret returns a sink that is a secret of GitHub Actions, of a
// repository or of an environment. The token is sent in a box that only GitHub
// can open.
//
// GitHub never returns a secret's value. Reading.Version is the time at which
// the secret was last written, and empty if it does not exist. A write first
// checks that this time is still the same; GitHub knows no compare-and-set, so
// that a write by somebody else between the check and the write, or in the
// second of the write before, is overwritten unseen. Confirm can only vouch
// for a token that the same value wrote.
func GitHubActionsSecret(cfg GitHubConfig) (Sink, error) {
	cfg.Address = cmp.Or(cfg.Address, githubAddress)
	r, err := newRest(githubOp, cfg.Address, cfg.Token, cfg.HTTPClient)
	if err != nil {
		return nil, err
	}
	if err := checkParams(githubOp, param{"Owner", cfg.Owner, false}, param{"Repo", cfg.Repo, false}); err != nil {
		return nil, err
	}
	if reason := githubNameProblem(cfg.Name); reason != "" {
		return nil, &keywright.ParamError{Op: githubOp, Field: "Name", Reason: reason}
	}
	if cfg.Lag < 0 {
		return nil, &keywright.ParamError{Op: githubOp, Field: "Lag", Reason: "is negative"}
	}
	place, path := cfg.Owner+"/"+cfg.Repo, "/repos/"+escapePath(cfg.Owner)+"/"+escapePath(cfg.Repo)
	if env := cfg.Environment; env == "" {
		path += "/actions/secrets"
		r.needs = `the repository permission "Secrets" (write), or the scope "repo" of a classic token`
	} else {
		// An environment may be called "a/b"; its slash is escaped.
		if reason := segmentProblem(env); reason != "" {
			return nil, &keywright.ParamError{Op: githubOp, Field: "Environment", Reason: reason}
		}
		place += " " + env
		path += "/environments/" + url.PathEscape(env) + "/secrets"
		r.needs = `the repository permission "Environments" (write), or the scope "repo" of a classic token`
	}
	r.name = "github " + r.base + " " + place + "#" + cfg.Name
	r.headers = func(h http.Header, token string) {
		h.Set("Authorization", "Bearer "+token)
		h.Set("Accept", "application/vnd.github+json")
		h.Set("X-GitHub-Api-Version", githubVersion)
	}
	return &githubSecret{rest: r, secrets: path, name: cfg.Name, lag: cmp.Or(cfg.Lag, githubJob)}, nil
}

// githubNameProblem names what keeps s from being a secret's name. Nothing
// that passes can be taken for another path of the API, as "public-key" would.
func githubNameProblem(s string) string {
	switch {
	case s == "":
		return "is missing"
	case s[0] >= '0' && s[0] <= '9':
		return "must not start with a digit"
	case len(s) >= 7 && strings.EqualFold(s[:7], "GITHUB_"):
		return "must not start with GITHUB_"
	}
	for i := range len(s) {
		if c := s[i]; c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return "must be made of letters, digits and _"
		}
	}
	return ""
}

type githubSecret struct {
	rest    *rest
	secrets string // path of the repository's or the environment's
	name    string
	lag     time.Duration

	mu      sync.Mutex
	written Reading // what this value wrote, and GitHub's time of it
}

func (g *githubSecret) Name() string { return g.rest.name }

func (g *githubSecret) Traits() Traits {
	return Traits{
		Lag:       g.lag,
		Grade:     GradeAcknowledged,
		Guarantee: "GitHub has accepted the token; jobs that start from now on get it, those that run keep the old one.",
	}
}

func (g *githubSecret) Read(ctx context.Context) (Reading, error) {
	version, err := g.updatedAt(ctx, g.rest.begin("read"))
	return Reading{Version: version}, err
}

func (g *githubSecret) CompareAndWrite(ctx context.Context, previous Reading, token keywright.Secret) error {
	x := g.rest.begin("write", token, previous.Token)
	if token.IsZero() {
		return x.fail(ErrRefused, "there is no token to write")
	}
	version, err := g.updatedAt(ctx, x)
	if err != nil {
		return err
	}
	if err := x.unchanged(Reading{Version: version}, Reading{Version: previous.Version}); err != nil {
		return err
	}
	a, err := g.put(ctx, x, token)
	if err == nil && a.status == http.StatusUnprocessableEntity {
		a, err = g.put(ctx, x, token) // the key may have been replaced since it was fetched
	}
	switch {
	case err != nil:
		return err
	case a.status == http.StatusNotFound:
		return x.refuse(a, g.missing())
	case a.status != http.StatusCreated && a.status != http.StatusNoContent:
		return x.refuse(a, "GitHub refused")
	}
	if version, err = g.updatedAt(ctx, x); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.written = Reading{Token: token, Version: version}
	return nil
}

// Confirm compares the time at which the secret was last written with the time
// at which this value wrote token.
func (g *githubSecret) Confirm(ctx context.Context, token keywright.Secret) error {
	x := g.rest.begin("confirm", token)
	g.mu.Lock()
	written := g.written
	g.mu.Unlock()
	if token.IsZero() || !written.Token.Equal(token) {
		return x.fail(ErrTemporary, "GitHub shows no values, and this process has not written the token; it must be written again")
	}
	version, err := g.updatedAt(ctx, x)
	switch {
	case err != nil:
		return err
	case version == "":
		return x.fail(ErrConflict, "somebody else has deleted the secret")
	case version != written.Version:
		return x.fail(ErrConflict, "somebody else has written the secret")
	}
	return nil
}

func (g *githubSecret) missing() string {
	return "there is no such repository or environment, or the authentication token may not know of it; " +
		"create it, or grant " + g.rest.needs
}

// updatedAt returns when the secret was last written, or "" if there is none.
func (g *githubSecret) updatedAt(ctx context.Context, x *exchange) (string, error) {
	a, err := x.send(ctx, request{method: http.MethodGet, path: g.secrets + "/" + g.name})
	switch {
	case err != nil:
		return "", err
	case a.status == http.StatusNotFound:
		return "", nil
	case a.status != http.StatusOK:
		return "", x.refuse(a, "GitHub refused")
	}
	var secret struct {
		UpdatedAt string `json:"updated_at"`
	}
	if err := x.decode(a, &secret); err != nil {
		return "", err
	}
	if _, err := time.Parse(time.RFC3339, secret.UpdatedAt); err != nil {
		return "", x.refuse(a, "answer has no time of the last write; this is not the API of GitHub")
	}
	return secret.UpdatedAt, nil
}

// put fetches the public key, seals token for it, and sends it.
func (g *githubSecret) put(ctx context.Context, x *exchange, token keywright.Secret) (*answer, error) {
	a, err := x.send(ctx, request{method: http.MethodGet, path: g.secrets + "/public-key"})
	switch {
	case err != nil:
		return nil, err
	case a.status == http.StatusNotFound:
		return nil, x.refuse(a, g.missing())
	case a.status != http.StatusOK:
		return nil, x.refuse(a, "GitHub refused")
	}
	var public struct {
		KeyID string `json:"key_id"`
		Key   []byte `json:"key"` // base64
	}
	if err := x.decode(a, &public); err != nil {
		return nil, err
	}
	var key [32]byte
	if public.KeyID == "" || len(public.Key) != len(key) {
		return nil, x.refuse(a, "answer has no public key; this is not the API of GitHub")
	}
	copy(key[:], public.Key)
	sealed, err := box.SealAnonymous(nil, []byte(token.Reveal()), &key, rand.Reader)
	if err != nil {
		return nil, x.fail(nil, "the token cannot be sealed")
	}
	body, err := json.Marshal(map[string]string{
		"encrypted_value": base64.StdEncoding.EncodeToString(sealed),
		"key_id":          public.KeyID,
	})
	if err != nil {
		return nil, x.fail(nil, "the request cannot be encoded")
	}
	return x.send(ctx, request{http.MethodPut, g.secrets + "/" + g.name, "application/json", body})
}
