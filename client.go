package keywright

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/keywright/keywright/internal/loopback"
)

// Version is the SDK's version, as sent in User-Agent.
const Version = "0.1.0"

// Where the providers are, unless the environment, a file or [WithBaseURL]
// says otherwise.
const (
	ricloudBaseURL = "https://ricloud-api.reincubate.com"
	aceDataBaseURL = "https://platform.acedata.cloud"
	aceDataAPI     = "/api/v1"
)

// Ricloud is a client for Reincubate's Cloud Data API. Make one with
// [NewRicloud]; it is safe for concurrent use and meant to be kept.
type Ricloud struct {
	Key           *KeyService           // keys of the organisation
	StorageConfig *StorageConfigService // where results are stored
	WebhookConfig *WebhookConfigService // where events are sent
	Organisation  *OrganisationService  // the organisation behind the token
	Task          *TaskService          // tasks, config tests among them
	Event         *EventService         // the event log

	c *client
}

// AceData is a client for Ace Data Cloud's management API. Make one with
// [NewAceData]; it is safe for concurrent use and meant to be kept.
type AceData struct {
	Credential    *CredentialService    // API keys ("credentials")
	Application   *ApplicationService   // what credentials belong to
	PlatformToken *PlatformTokenService // tokens of this API itself

	c *client
}

// NewRicloud returns a client for ricloud. The token comes from [WithToken] or
// [WithTokenSource], else from RICLOUD_TOKEN, else from the [api] section of
// the file that RICLOUD_CONF names, else from ~/.ricloud.ini; the base URL
// likewise from [WithBaseURL], RICLOUD_URL and the files. It sends nothing.
//
// Errors: a [*ParamError] for an option, a [*ConfigError] for a variable or
// file, [ErrNoToken] when there is no token anywhere.
func NewRicloud(opts ...Option) (*Ricloud, error) {
	cfg, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	st, err := ricloudSettings(cfg)
	if err != nil {
		return nil, err
	}
	c, err := newClient("ricloud", "Token ", cfg, st)
	if err != nil {
		return nil, err
	}
	return ricloudOf(c), nil
}

func ricloudOf(c *client) *Ricloud {
	s := &service{c}
	return &Ricloud{
		c:             c,
		Key:           (*KeyService)(s),
		StorageConfig: (*StorageConfigService)(s),
		WebhookConfig: (*WebhookConfigService)(s),
		Organisation:  (*OrganisationService)(s),
		Task:          (*TaskService)(s),
		Event:         (*EventService)(s),
	}
}

// NewAceData returns a client for Ace Data Cloud. The platform token comes
// from [WithToken] or [WithTokenSource], else from ACEDATACLOUD_PLATFORM_TOKEN;
// the base URL from [WithBaseURL], else from PLATFORM_API_BASE_URL. It sends
// nothing. Errors are those of [NewRicloud].
func NewAceData(opts ...Option) (*AceData, error) {
	cfg, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	st, err := aceDataSettings(cfg)
	if err != nil {
		return nil, err
	}
	c, err := newClient("acedata", "Bearer ", cfg, st)
	if err != nil {
		return nil, err
	}
	return aceDataOf(c), nil
}

func aceDataOf(c *client) *AceData {
	s := &service{c}
	return &AceData{
		c:             c,
		Credential:    (*CredentialService)(s),
		Application:   (*ApplicationService)(s),
		PlatformToken: (*PlatformTokenService)(s),
	}
}

// WithTokenSource returns a client that is like r but for where its token comes
// from, and shares r's connections.
func (r *Ricloud) WithTokenSource(s TokenSource) (*Ricloud, error) {
	c, err := r.c.withTokenSource(s)
	if err != nil {
		return nil, err
	}
	return ricloudOf(c), nil
}

// CloseIdleConnections closes the connections that no call is using. A client
// that is given up needs no more than that.
func (r *Ricloud) CloseIdleConnections() { r.c.closeIdle() }

// WithTokenSource returns a client that is like a but for where its token comes
// from, and shares a's connections.
func (a *AceData) WithTokenSource(s TokenSource) (*AceData, error) {
	c, err := a.c.withTokenSource(s)
	if err != nil {
		return nil, err
	}
	return aceDataOf(c), nil
}

// CloseIdleConnections closes the connections that no call is using. A client
// that is given up needs no more than that.
func (a *AceData) CloseIdleConnections() { a.c.closeIdle() }

// service is what every resource's service is made of.
type service struct{ c *client }

// client is what the services of one provider share. It does not change after
// newClient but for the parts that say so.
type client struct {
	provider string
	scheme   string // of the Authorization header, with its space
	base     *url.URL
	loopback bool
	source   TokenSource
	defaults callConfig
	header   http.Header    // on every request
	noHeader http.Header    // empty
	over     *http.Response // what every attempt shows to the loop around it
	jsonType []string       // Content-Type, shared by all requests
	log      *slog.Logger
	reads    http.RoundTripper
	writes   http.RoundTripper
	traced   bool // nothing but our own transport is below
	idle     transports
	most     time.Duration // bound of every attempt, from the caller's http.Client; 0: none

	*shared              // changes
	me      *currentUser // changes
}

// shared is what clients of one origin have in common.
type shared struct {
	budget budget
	pool   sync.Pool // of *bytes.Buffer
	made   madeIDs
}

// currentUser is the caller's own user_id at Ace Data, once it is known.
type currentUser struct {
	busy chan struct{} // held while id is used or looked up
	id   string
}

func newCurrentUser() *currentUser { return &currentUser{busy: make(chan struct{}, 1)} }

// withTokenSource returns a copy of c that takes its tokens elsewhere.
func (c *client) withTokenSource(s TokenSource) (*client, error) {
	if c == nil {
		return nil, ErrNotInitialized
	}
	if isNil(s) {
		return nil, optionError("token source", "must not be nil")
	}
	derived := *c
	derived.source, derived.me = s, newCurrentUser()
	return &derived, derived.checkSource()
}

// checkSource refuses a token that is evidently for somebody else.
func (c *client) checkSource() error {
	s, ok := c.source.(*staticToken)
	switch {
	case !ok:
		return nil
	case s.err != nil:
		return s.err
	case c.provider == "ricloud" && strings.HasPrefix(s.token.Reveal(), "platform-"):
		return &ParamError{
			Op: "client", Field: "token", Err: ErrInvalidToken,
			Reason: "is an account token of Ace Data Cloud; this client needs the token of a ricloud key",
		}
	}
	return nil
}

func newConfig(opts []Option) (*config, error) {
	cfg := &config{call: callConfig{timeout: defaultTimeout, retry: RetryPolicy{}.withDefaults()}}
	for i, o := range opts {
		if isNil(o) {
			return nil, optionError("option "+itoa(i+1), "is nil")
		}
		if err := o.applyClient(cfg); err != nil {
			return nil, err
		}
	}
	return cfg, nil
}

func newClient(provider, scheme string, cfg *config, st *settings) (*client, error) {
	if st.retries >= 0 && !cfg.call.retrySet {
		cfg.call.retry.MaxAttempts = st.retries + 1
	}
	cfg.call.await = st.await
	agent := "keywright-go/" + Version
	if cfg.userAgent != "" {
		agent += " " + cfg.userAgent
	}
	sends, err := newTransports(cfg.httpClient)
	if err != nil {
		return nil, err
	}
	c := &client{
		provider: provider,
		scheme:   scheme,
		base:     st.baseURL,
		loopback: loopback.Is(st.baseURL.Hostname()),
		source:   st.source,
		defaults: cfg.call,
		header:   http.Header{"Accept": {"application/json"}, "User-Agent": {agent}},
		noHeader: http.Header{},
		over:     &http.Response{StatusCode: http.StatusOK, Body: http.NoBody},
		jsonType: []string{"application/json"},
		log:      cfg.logger,
		traced:   sends.own && len(cfg.middleware) == 0,
		idle:     sends,
		shared:   new(shared),
		me:       newCurrentUser(),
	}
	if err := c.checkSource(); err != nil {
		return nil, err
	}
	if cfg.httpClient != nil {
		c.most = cfg.httpClient.Timeout
	}
	c.pool.New = func() any { return new(bytes.Buffer) }
	c.reads = c.layers(sends.reads, cfg.middleware)
	c.writes = c.layers(sends.writes, cfg.middleware)
	return c, nil
}

// layers puts the guard and the middleware around a transport.
func (c *client) layers(rt http.RoundTripper, middleware []func(http.RoundTripper) http.RoundTripper) http.RoundTripper {
	rt = &originGuard{next: rt, scheme: c.base.Scheme, host: c.base.Host}
	for i := len(middleware) - 1; i >= 0; i-- {
		rt = middleware[i](rt)
	}
	return rt
}

func (c *client) closeIdle() {
	if c != nil {
		c.idle.closeIdle()
	}
}
