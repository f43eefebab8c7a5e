package keywright

import (
	"context"
	"iter"
	"net/url"
	"time"

	"github.com/keywright/keywright/internal/wire"
)

// WebhookConfig says where ricloud sends events.
type WebhookConfig struct {
	ID             WebhookConfigID   `json:"id"`                    // from 1
	OrganisationID OrganisationID    `json:"organisation"`          // owner
	URL            string            `json:"url"`                   // target of the deliveries
	Secret         Secret            `json:"secret,omitzero"`       // signs the deliveries; made by the provider
	Masked         bool              `json:"-"`                     // the provider sent a mask in place of the secret
	State          ConfigState       `json:"state"`                 // whether it passed its test
	DateCreated    time.Time         `json:"date_created,omitzero"` // UTC
	Extra          map[string]Secret `json:"-"`                     // members this version does not know, each as JSON
}

func (c *WebhookConfig) decode(o *wire.Object) {
	for o.Next() {
		switch string(o.Key) {
		case "id":
			wire.IntRef(o, &c.ID)
		case "resource":
			o.Skip()
		case "organisation":
			wire.IntRef(o, &c.OrganisationID)
		case "url":
			o.String(&c.URL)
		case "secret":
			readMaskable(o, &c.Secret, &c.Masked, "**", isPrintable)
		case "state":
			wire.Enum(o, &c.State, ConfigNew, ConfigValid, ConfigInvalid, ConfigDeactivated)
		case "date_created":
			o.Time(&c.DateCreated)
		}
	}
	c.Extra = unknown(o)
}

func (c *WebhookConfig) ident() ident { return ident{number: int64(c.ID)} }

func (*WebhookConfig) kind() string { return "webhook_config" }

func (c *WebhookConfig) newSecret() (Secret, string) { return c.Secret, "secret" }

// UnmarshalJSON reads a webhook config as the provider sends it.
func (c *WebhookConfig) UnmarshalJSON(b []byte) error { return unmarshal(b, c) }

// WebhookConfigCreateParams are the parameters of a new webhook config.
type WebhookConfigCreateParams struct {
	// URL is required: https, and reachable from the provider. A provider on
	// loopback takes loopback URLs too.
	URL string `json:"url"`
}

// WebhookConfigUpdateParams are what of a webhook config can be changed. At
// least one must be set.
type WebhookConfigUpdateParams struct {
	URL Opt[string] `json:"url,omitzero"` // as in a create; the state goes back to new
}

// WebhookConfigListParams are the page of a list.
type WebhookConfigListParams struct {
	Limit    int             // items a page, 1 to 1000; 0: the provider's default of 10 for List, 100 for All
	AfterID  WebhookConfigID // start behind this config
	BeforeID WebhookConfigID // stop before this config
}

// WebhookConfigService manages where events are sent.
type WebhookConfigService service

// checkURL refuses a target that the provider cannot or must not call.
func (s *WebhookConfigService) checkURL(op *operation, raw string) error {
	if s == nil || s.c == nil {
		return ErrNotInitialized
	}
	if raw == "" {
		return &ParamError{Op: op.name, Field: "url", Reason: "is required"}
	}
	if reason := webhookURLProblem(raw, s.c.loopback); reason != "" {
		return &ParamError{Op: op.name, Field: "url", Reason: reason, Err: ErrInvalidURL}
	}
	return nil
}

// Create makes a webhook config, with a secret that the provider chooses, and
// starts a test of it: POST /configs/webhook. It is sent once; a lost answer
// is an error whose Recover looks for the config that may have been made.
func (s *WebhookConfigService) Create(ctx context.Context, p WebhookConfigCreateParams, opts ...CallOption) (*WebhookConfig, error) {
	if err := s.checkURL(&opWebhookCreate, p.URL); err != nil {
		return nil, err
	}
	r := &request{op: &opWebhookCreate, path: "/configs/webhook", params: p}
	r.probe = probeCreated((*service)(s), func(ctx context.Context, m *Meta) (*Page[WebhookConfig], error) {
		return s.List(ctx, WebhookConfigListParams{Limit: allLimit}, WithMeta(m))
	}, func(c *WebhookConfig) time.Time { return c.DateCreated }, func(c *WebhookConfig) bool { return c.URL == p.URL })
	return issue[WebhookConfig](ctx, (*service)(s), r, ident{}, Secret{}, opts)
}

// Retrieve returns a webhook config: GET /configs/webhook/{id}. It is a read,
// and retried.
func (s *WebhookConfigService) Retrieve(ctx context.Context, id WebhookConfigID, opts ...CallOption) (*WebhookConfig, error) {
	path, err := numberPath(&opWebhookRetrieve, "/configs/webhook", id, "")
	if err != nil {
		return nil, err
	}
	return fetch[WebhookConfig](ctx, (*service)(s), &request{op: &opWebhookRetrieve, path: path}, ident{number: int64(id)}, opts)
}

// List returns one page of webhook configs: GET /configs/webhook. It is a
// read, and retried.
func (s *WebhookConfigService) List(ctx context.Context, p WebhookConfigListParams, opts ...CallOption) (*Page[WebhookConfig], error) {
	l, err := s.lister(p, opts)
	if err != nil {
		return nil, err
	}
	return l.list(ctx)
}

// All iterates over webhook configs: GET /configs/webhook.
func (s *WebhookConfigService) All(ctx context.Context, p WebhookConfigListParams, opts ...CallOption) iter.Seq2[*WebhookConfig, error] {
	l, err := s.lister(p, opts)
	if err != nil {
		return failed[WebhookConfig](err)
	}
	return l.all(ctx)
}

func (s *WebhookConfigService) lister(p WebhookConfigListParams, opts []CallOption) (lister[WebhookConfig, *WebhookConfig], error) {
	l := lister[WebhookConfig, *WebhookConfig]{s: (*service)(s), op: &opWebhookList, path: "/configs/webhook", limit: p.Limit, opts: opts, filters: url.Values{}}
	return l, setWindow(l.op, l.filters, int64(p.AfterID), int64(p.BeforeID))
}

// Update changes config at the provider, and *config becomes its answer: POST
// /configs/webhook/{id}. It is sent again only after proof that it did
// nothing.
func (s *WebhookConfigService) Update(ctx context.Context, config *WebhookConfig, p WebhookConfigUpdateParams, opts ...CallOption) error {
	if config == nil {
		return nilResource(&opWebhookUpdate)
	}
	got, err := s.UpdateWithID(ctx, config.ID, p, opts...)
	if err == nil {
		*config = *got
	}
	return err
}

// UpdateWithID is [WebhookConfigService.Update] for a config known by its id.
func (s *WebhookConfigService) UpdateWithID(ctx context.Context, id WebhookConfigID, p WebhookConfigUpdateParams, opts ...CallOption) (*WebhookConfig, error) {
	op := &opWebhookUpdate
	path, err := numberPath(op, "/configs/webhook", id, "")
	if err != nil {
		return nil, err
	}
	raw, ok := p.URL.Get()
	if !ok {
		return nil, nothingToUpdate(op)
	}
	if err := s.checkURL(op, raw); err != nil {
		return nil, err
	}
	r := &request{op: op, path: path, params: p}
	r.probe = probeUpdated(
		func(ctx context.Context) (*WebhookConfig, error) { return s.Retrieve(ctx, id) },
		func(c *WebhookConfig) Outcome { return reflects(p, map[string]any{"url": c.URL}) })
	return change[WebhookConfig](ctx, (*service)(s), r, ident{number: int64(id)}, opts)
}

// Delete deletes config: DELETE /configs/webhook/{id}. A delete whose answer
// is lost is looked into before it returns: success if the config is gone, and
// sent again if it is still there after the settle time.
func (s *WebhookConfigService) Delete(ctx context.Context, config *WebhookConfig, opts ...CallOption) error {
	if config == nil {
		return nilResource(&opWebhookDelete)
	}
	return s.DeleteWithID(ctx, config.ID, opts...)
}

// DeleteWithID is [WebhookConfigService.Delete] for a config known by its id.
func (s *WebhookConfigService) DeleteWithID(ctx context.Context, id WebhookConfigID, opts ...CallOption) error {
	path, err := numberPath(&opWebhookDelete, "/configs/webhook", id, "")
	if err != nil {
		return err
	}
	return (*service)(s).remove(ctx, &request{op: &opWebhookDelete, path: path}, func(ctx context.Context) error {
		_, err := s.Retrieve(ctx, id)
		return err
	}, opts)
}

// Test starts a task that delivers a test event to config: POST
// /configs/webhook/{id}/test. Give [WithAwait] to have the provider wait for
// its end, or pass the task to [TaskService.Wait]. It is sent once; Recover
// looks for the task.
func (s *WebhookConfigService) Test(ctx context.Context, config *WebhookConfig, opts ...CallOption) (*Task, error) {
	if config == nil {
		return nil, nilResource(&opWebhookTest)
	}
	return s.TestWithID(ctx, config.ID, opts...)
}

// TestWithID is [WebhookConfigService.Test] for a config known by its id.
func (s *WebhookConfigService) TestWithID(ctx context.Context, id WebhookConfigID, opts ...CallOption) (*Task, error) {
	path, err := numberPath(&opWebhookTest, "/configs/webhook", id, "/test")
	if err != nil {
		return nil, err
	}
	return startTest(ctx, (*service)(s), &opWebhookTest, path, "webhook_config.test", opts)
}
