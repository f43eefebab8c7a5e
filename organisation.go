package keywright

import (
	"context"
	"time"

	"github.com/keywright/keywright/internal/wire"
)

// OrganisationState is the state of an organisation. Unknown values are kept.
type OrganisationState string

// States of organisations.
const (
	OrganisationUnconfigured OrganisationState = "unconfigured" // new: most retrieval is blocked
	OrganisationActive       OrganisationState = "active"       // has a valid storage config
	OrganisationDeactivated  OrganisationState = "deactivated"  // at its owner's request
	OrganisationBlocked      OrganisationState = "blocked"      // by an administrator
)

// Known reports whether this version knows the state.
func (s OrganisationState) Known() bool {
	return known(s, OrganisationUnconfigured, OrganisationActive, OrganisationDeactivated, OrganisationBlocked)
}

// OrganisationType is the type of an organisation. Unknown values are kept.
type OrganisationType string

// Types of organisations.
const (
	OrganisationStandard OrganisationType = "standard" // a customer's
	OrganisationSuper    OrganisationType = "super"    // the provider's own
)

// Known reports whether this version knows the type.
func (t OrganisationType) Known() bool { return known(t, OrganisationStandard, OrganisationSuper) }

// Organisation is the account behind a key.
type Organisation struct {
	ID                   OrganisationID    `json:"id"`                     // from 1
	Type                 OrganisationType  `json:"type,omitempty"`         // standard or super; empty from older versions of the API
	Name                 string            `json:"name"`                   // display name
	Slug                 string            `json:"slug"`                   // derived from the name
	APIVersion           string            `json:"api_version,omitempty"`  // empty from older versions of the API
	Config               *KeyConfig        `json:"config,omitempty"`       // nil from older versions of the API
	Permissions          *Permissions      `json:"permissions,omitempty"`  // what the organisation may do
	StorageConfigs       []*StorageConfig  `json:"storage_configs"`        // as far as the provider lists them here; see [StorageConfigService.All]
	StorageConfigDefault *StorageConfigID  `json:"storage_config_default"` // for keys without their own; nil: none
	WebhookConfigs       []*WebhookConfig  `json:"webhook_configs"`        // as far as the provider lists them here; see [WebhookConfigService.All]
	WebhookConfigDefault *WebhookConfigID  `json:"webhook_config_default"` // for keys without their own; nil: none
	State                OrganisationState `json:"state"`                  // whether it is usable
	DateCreated          time.Time         `json:"date_created,omitzero"`  // UTC
	Extra                map[string]Secret `json:"-"`                      // members this version does not know, each as JSON
}

// Permissions say what an organisation, a key or a user may do.
type Permissions struct {
	ID             int64                        `json:"id"`                    // from 1
	OrganisationID OrganisationID               `json:"organisation,omitzero"` // owner; 0 if the provider does not say
	Identifier     string                       `json:"identifier,omitempty"`  // name of the set
	Scopes         map[string][]PermissionLimit `json:"scopes"`                // limits by scope, "task_type:*"; none: unlimited
	DateCreated    time.Time                    `json:"date_created,omitzero"` // UTC
	Extra          map[string]Secret            `json:"-"`                     // members this version does not know, each as JSON
}

// PermissionLimit bounds the use of a scope.
type PermissionLimit struct {
	Level string  `json:"level"` // "organisation", "key" or "user"
	Type  string  `json:"type"`  // "count"
	Value float64 `json:"value"` // the bound
}

func (p *Permissions) decode(o *wire.Object) {
	for o.Next() {
		switch string(o.Key) {
		case "id":
			wire.IntRef(o, &p.ID)
		case "resource":
			o.Skip()
		case "organisation":
			wire.IntRef(o, &p.OrganisationID)
		case "date_created":
			o.Time(&p.DateCreated)
		case "identifier":
			o.String(&p.Identifier)
		case "scopes":
			inner := o.Object()
			if inner == nil {
				break
			}
			p.Scopes = make(map[string][]PermissionLimit)
			for inner.Next() {
				scope := string(inner.Key)
				limits := []PermissionLimit{}
				inner.List(func(l *wire.Object) {
					var limit PermissionLimit
					for l.Next() {
						switch string(l.Key) {
						case "level":
							l.String(&limit.Level)
						case "type":
							l.String(&limit.Type)
						case "value":
							l.Float(&limit.Value)
						}
					}
					limits = append(limits, limit)
				})
				p.Scopes[scope] = limits
			}
		}
	}
	p.Extra = unknown(o)
}

func (g *Organisation) decode(o *wire.Object) {
	for o.Next() {
		switch string(o.Key) {
		case "id":
			wire.IntRef(o, &g.ID)
		case "resource":
			o.Skip()
		case "type":
			wire.Enum(o, &g.Type, OrganisationStandard, OrganisationSuper)
		case "name":
			o.String(&g.Name)
		case "slug":
			o.String(&g.Slug)
		case "api_version":
			o.Loose().String(&g.APIVersion) // its format is not documented
		case "config":
			decodeConfig(o, &g.Config)
		case "permissions":
			if inner := o.Loose().Object(); inner != nil {
				g.Permissions = new(Permissions)
				g.Permissions.decode(inner)
			}
		case "storage_configs":
			o.List(func(item *wire.Object) {
				c := new(StorageConfig)
				c.decode(item)
				g.StorageConfigs = append(g.StorageConfigs, c)
			})
		case "storage_config_default":
			wire.IntRefPtr(o, &g.StorageConfigDefault)
		case "webhook_configs":
			o.List(func(item *wire.Object) {
				c := new(WebhookConfig)
				c.decode(item)
				g.WebhookConfigs = append(g.WebhookConfigs, c)
			})
		case "webhook_config_default":
			wire.IntRefPtr(o, &g.WebhookConfigDefault)
		case "state":
			wire.Enum(o, &g.State, OrganisationUnconfigured, OrganisationActive, OrganisationDeactivated, OrganisationBlocked)
		case "date_created":
			o.Time(&g.DateCreated)
		}
	}
	g.Extra = unknown(o)
}

func (g *Organisation) ident() ident { return ident{number: int64(g.ID)} }

func (*Organisation) kind() string { return "organisation" }

// UnmarshalJSON reads an organisation as the provider sends it.
func (g *Organisation) UnmarshalJSON(b []byte) error { return unmarshal(b, g) }

// OrganisationUpdateParams are what of the organisation can be changed. At
// least one must be set.
type OrganisationUpdateParams struct {
	Name                 Opt[string]          `json:"name,omitzero"`                   // display name
	StorageConfigDefault Opt[StorageConfigID] `json:"storage_config_default,omitzero"` // null: no default
	WebhookConfigDefault Opt[WebhookConfigID] `json:"webhook_config_default,omitzero"` // null: no default
	Config               Opt[KeyConfig]       `json:"config,omitzero"`                 // newer versions of the API only
}

// OrganisationService manages the organisation behind the token.
type OrganisationService service

// Retrieve returns the organisation: GET /organisation. It is a read, and
// retried.
func (s *OrganisationService) Retrieve(ctx context.Context, opts ...CallOption) (*Organisation, error) {
	return fetch[Organisation](ctx, (*service)(s), &request{op: &opOrganisationRetrieve, path: "/organisation"}, ident{}, opts)
}

// Update changes the organisation: POST /organisation. It is sent again only
// after proof that it did nothing.
func (s *OrganisationService) Update(ctx context.Context, p OrganisationUpdateParams, opts ...CallOption) (*Organisation, error) {
	op := &opOrganisationUpdate
	if p.Name.IsZero() && p.StorageConfigDefault.IsZero() && p.WebhookConfigDefault.IsZero() && p.Config.IsZero() {
		return nil, nothingToUpdate(op)
	}
	if err := checkText(op, "name", p.Name, maxName); err != nil {
		return nil, err
	}
	if err := checkConfigs(op, p.StorageConfigDefault, p.WebhookConfigDefault); err != nil {
		return nil, err
	}
	r := &request{op: op, path: "/organisation", params: p}
	r.probe = probeUpdated(
		func(ctx context.Context) (*Organisation, error) { return s.Retrieve(ctx) },
		func(g *Organisation) Outcome {
			shown := map[string]any{
				"name":                   g.Name,
				"storage_config_default": g.StorageConfigDefault, "webhook_config_default": g.WebhookConfigDefault,
			}
			if g.Config != nil {
				shown["config"] = g.Config
			}
			return reflects(p, shown)
		})
	return change[Organisation](ctx, (*service)(s), r, ident{}, opts)
}
