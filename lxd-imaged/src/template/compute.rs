//! Carries out expressions: operators, filters, and the way from a name to its value.

use std::cmp::Ordering;
use std::rc::Rc;

use super::error::{Fault, Kind};
use super::evaluate::{Evaluator, at};
use super::expression::{Call, Expression, Logic, Operand, Product, Relation, Step, Sum};
use super::filters::Filter;
use super::value::Value;

impl Evaluator<'_> {
    /// The value of an expression; `offset` is where errors are reported that have no place of
    /// their own.
    pub(super) fn expression(
        &mut self,
        expression: &Expression,
        offset: usize,
    ) -> Result<Value, Fault> {
        self.work.spend(1).map_err(at(offset))?;
        match expression {
            Expression::Filtered { base, filters } => {
                let value = self.operand(base, offset)?;
                self.filtered(value, filters)
            }
            Expression::Logic { first, rest } => self.logic(first, rest, offset),
            Expression::Relation { first, rest } => {
                let first = self.expression(first, offset)?;
                let mut values = Vec::with_capacity(rest.len());
                for (operator, operand) in rest {
                    values.push((*operator, self.expression(operand, offset)?));
                }
                self.relation(first, values).map_err(at(offset))
            }
            Expression::Sum { minus, not, first, rest } => {
                let mut value = self.expression(first, offset)?;
                if *not {
                    value = value.negated();
                }
                if let Some(offset) = minus {
                    value = minus_of(&value).map_err(at(*offset))?;
                }
                for (operator, operand) in rest {
                    let operand = self.expression(operand, offset)?;
                    value = self.sum(&value, *operator, &operand).map_err(at(offset))?;
                }
                Ok(value)
            }
            Expression::Product { first, rest } => {
                let mut value = self.expression(first, offset)?;
                for (operator, offset, operand) in rest {
                    let operand = self.expression(operand, *offset)?;
                    value = self.product(&value, *operator, &operand).map_err(at(*offset))?;
                }
                Ok(value)
            }
            Expression::Power { first, rest } => {
                let mut values = vec![self.expression(first, offset)?.float()];
                for operand in rest {
                    let operand = self.expression(operand, offset)?;
                    self.work.look(&operand).map_err(at(offset))?;
                    values.push(operand.float());
                }
                let power = values.into_iter().rev().reduce(|power, base| base.powf(power));
                Ok(power.map_or(Value::Nil, Value::Float))
            }
        }
    }

    fn logic(
        &mut self,
        first: &Expression,
        rest: &[(Logic, Expression)],
        offset: usize,
    ) -> Result<Value, Fault> {
        let mut value = self.expression(first, offset)?;
        for (operator, operand) in rest {
            let decided = value.is_true() == (*operator == Logic::Or);
            if decided {
                break;
            }
            value = self.expression(operand, offset)?;
        }
        Ok(Value::Bool(value.is_true()))
    }

    fn relation(&mut self, first: Value, rest: Vec<(Relation, Value)>) -> Result<Value, Kind> {
        let (mut operators, mut values) = (Vec::new(), vec![first]);
        for (operator, value) in rest {
            operators.push(operator);
            values.push(value);
        }
        let mut right = values.pop().unwrap_or(Value::Nil);
        while let (Some(left), Some(operator)) = (values.pop(), operators.pop()) {
            self.work.look(&left)?;
            self.work.look(&right)?;
            let order = || left.compare(&right);
            let holds = match operator {
                Relation::Equal => left.equals(&right),
                Relation::Unequal => !left.equals(&right),
                Relation::Less => order().is_some_and(Ordering::is_lt),
                Relation::LessOrEqual => order().is_some_and(Ordering::is_le),
                Relation::Greater => order().is_some_and(Ordering::is_gt),
                Relation::GreaterOrEqual => order().is_some_and(Ordering::is_ge),
                Relation::In => {
                    self.work.spend(right.elements().saturating_mul(left.size() / 16))?;
                    right.contains(&left)
                }
            };
            right = Value::Bool(holds);
        }
        Ok(right)
    }

    fn sum(&mut self, left: &Value, operator: Sum, right: &Value) -> Result<Value, Kind> {
        self.work.look(left)?;
        self.work.look(right)?;
        if matches!(operator, Sum::Plus) && (left.is_plain_text() || right.is_plain_text()) {
            let (left, right) = (left.text(), right.text());
            self.work.text(left.len() + right.len())?;
            return Ok(Value::from([&*left, &*right].concat()));
        }
        Ok(match (operator, left.is_float() || right.is_float()) {
            (Sum::Plus, true) => Value::Float(left.float() + right.float()),
            (Sum::Minus, true) => Value::Float(left.float() - right.float()),
            (Sum::Plus, false) => Value::Int(left.integer().wrapping_add(right.integer())),
            (Sum::Minus, false) => Value::Int(left.integer().wrapping_sub(right.integer())),
        })
    }

    fn product(&mut self, left: &Value, operator: Product, right: &Value) -> Result<Value, Kind> {
        self.work.look(left)?;
        self.work.look(right)?;
        if left.is_float() || right.is_float() {
            match operator {
                Product::Times => return Ok(Value::Float(left.float() * right.float())),
                Product::By => return Ok(Value::Float(left.float() / right.float())),
                Product::Modulo => {}
            }
        }
        let (left, right) = (left.integer(), right.integer());
        match operator {
            Product::Times => Ok(Value::Int(left.wrapping_mul(right))),
            _ if right == 0 => Err(Kind::Value("can't divide by 0".to_owned())),
            Product::By => Ok(Value::Int(left.wrapping_div(right))),
            Product::Modulo => Ok(Value::Int(left.wrapping_rem(right))),
        }
    }

    pub(super) fn filtered(&mut self, mut value: Value, filters: &[Call]) -> Result<Value, Fault> {
        for Call { offset, filter, parameter } in filters {
            let parameter = match parameter {
                Some(operand) => self.operand(operand, *offset)?,
                None => Value::Nil,
            };
            value = self.filter(*filter, &value, &parameter).map_err(at(*offset))?;
        }
        Ok(value)
    }

    fn filter(&mut self, filter: Filter, input: &Value, parameter: &Value) -> Result<Value, Kind> {
        self.work.look(input)?;
        self.work.look(parameter)?;
        let value = filter.apply(input, parameter, &mut self.work)?;
        self.work.look(&value)?;
        Ok(value)
    }

    fn operand(&mut self, operand: &Operand, offset: usize) -> Result<Value, Fault> {
        match operand {
            Operand::Bool(value) => Ok(Value::Bool(*value)),
            Operand::Int(number) => Ok(Value::Int(*number)),
            Operand::Float(number) => Ok(Value::Float(*number)),
            Operand::Text(text) => Ok(Value::Text(Rc::clone(text))),
            Operand::Path { offset: place, name, steps } => {
                self.work.spend(1).map_err(at(offset))?;
                self.path(*place, name, steps)
            }
        }
    }

    /// Follows a name into its value. Once there is nothing, nothing is what comes of it.
    fn path(&mut self, offset: usize, name: &str, steps: &[Step]) -> Result<Value, Fault> {
        let mut value = self.lookup(name);
        for step in steps {
            self.work.spend(1).map_err(at(offset))?;
            if matches!(value, Value::Nil) {
                return Ok(Value::Nil);
            }
            value = match step {
                Step::Call(arguments) => self.call(&value, name, arguments, offset)?,
                _ if matches!(value, Value::ConfigGet) => return Err(no_call(offset)),
                Step::Field(field) => match &value {
                    Value::Map(map) => map.get(field).cloned().unwrap_or(Value::Nil),
                    Value::Loop(state) => state.field(field),
                    other => {
                        let kind = other.kind();
                        let message = format!("can't take `{field}` out of `{name}`: it is {kind}");
                        return Err(Fault::value(offset, message));
                    }
                },
                Step::Index(index) => element(&value, *index, name).map_err(at(offset))?,
                Step::Subscript(expression) => {
                    let key = self.expression(expression, offset)?;
                    self.work.look(&key).map_err(at(offset))?;
                    match (&value, &key) {
                        (Value::Map(map), Value::Text(key)) => {
                            map.get(&**key).cloned().unwrap_or(Value::Nil)
                        }
                        (Value::Map(_), _) => Value::Nil,
                        _ => match usize::try_from(key.integer()) {
                            Ok(index) => element(&value, index, name).map_err(at(offset))?,
                            Err(_) => Value::Nil,
                        },
                    }
                }
            };
        }
        if matches!(value, Value::ConfigGet) {
            return Err(no_call(offset));
        }
        Ok(value)
    }

    fn call(
        &mut self,
        function: &Value,
        name: &str,
        arguments: &[Expression],
        offset: usize,
    ) -> Result<Value, Fault> {
        if !matches!(function, Value::ConfigGet) {
            let message = format!("`{name}` is no function: it is {}", function.kind());
            return Err(Fault::value(offset, message));
        }
        let [key, default] = arguments else { return Err(no_call(offset)) };
        let key = self.expression(key, offset)?;
        let default = self.expression(default, offset)?;
        self.work.look(&key).map_err(at(offset))?;
        let Some(value) = self.config.get(&*key.text()) else { return Ok(default) };
        self.work.text(value.len()).map_err(at(offset))?;
        Ok(Value::from(value.trim_end_matches(['\r', '\n'])))
    }
}

fn no_call(offset: usize) -> Fault {
    Fault::value(offset, "expected `config_get(KEY, DEFAULT)` with these two arguments")
}

fn minus_of(value: &Value) -> Result<Value, Kind> {
    match value {
        Value::Int(number) => Ok(Value::Int(number.wrapping_neg())),
        Value::Float(number) => Ok(Value::Float(-number)),
        other => Err(Kind::Value(format!("expected a number after `-`, this is {}", other.kind()))),
    }
}

/// The element of a list; of a text it is the number of the byte, odd as that is.
fn element(value: &Value, index: usize, name: &str) -> Result<Value, Kind> {
    match value {
        Value::List(list) => Ok(list.get(index).cloned().unwrap_or(Value::Nil)),
        Value::Text(text) => {
            Ok(text.as_bytes().get(index).map_or(Value::Nil, |byte| Value::Int((*byte).into())))
        }
        other => {
            let kind = other.kind();
            Err(Kind::Value(format!("can't take element {index} of `{name}`: it is {kind}")))
        }
    }
}
