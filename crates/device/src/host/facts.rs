pub struct Facts; pub struct FactsOptions; pub struct FactsState;
